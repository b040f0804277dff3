"""POST /v1/images/generations and GET /v1/models, for OpenAI's clients: only their base URL is changed.

A FastAPI app of its own, with its own errors and its own OpenAPI document; routes.py puts it beside Gradio's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.routing import Route

from api.openai.answer import ImagesAnswer, ModelCard, ModelList, answer, card
from api.openai.document import STREAMED, describe, errors
from api.openai.errors import Refusal, add_handlers, refusal_after
from api.openai.request import ImageRequest
from api.openai.stream import DrawingStream
from api.pictures import PictureFiles
from api.start_job import start_job
from pipeline import __version__
from pipeline.errors import quoted
from pipeline.events import Event

if TYPE_CHECKING:
    from jobs.lifecycle.subscription import Subscription
    from jobs.queue import Queue
    from pipeline.request import Job

PREFIX = "/v1"
GONE = 499
"""The status nobody reads, its client having gone; nginx's, for the log."""


def openai_app(queue: Queue, files: PictureFiles, root_url: Callable[[Request], str], keys: bool) -> FastAPI:
    """The app, to be mounted at PREFIX.

    Args:
        root_url: the server's address as this request's sender knows it, proxies included, without a slash
            at its end.
        keys: whether it will stand behind a guard that asks for one; the document says so.
    """
    engine = queue.engine
    app = FastAPI(
        title="Stepwise for OpenAI's clients",
        version=__version__,
        docs_url=None,  # its page would come from elsewhere
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    add_handlers(app)

    @app.post(
        "/images/generations",
        response_model=ImagesAnswer,
        responses=STREAMED | errors(400, 401, 404, 409, 413, 415, 429, 500, 503),
    )
    async def generate_images(asked: ImageRequest, request: Request) -> Response:
        """Draws pictures. With `stream`, sends their previews and then the pictures as server-sent events.

        Bounds differ between models: /v1/models has them. A client that disconnects ends its drawing.
        """
        job, known = await asyncio.to_thread(_checked, queue, asked)
        drawing = await start_job(queue, job)

        def done() -> None:
            if not known:
                drawing.stop()

        if asked.stream:
            return DrawingStream(drawing, asked, done)
        try:
            event = await last_event(drawing, request)
        finally:
            done()
        if event is None:
            return Response(status_code=GONE)
        if (refusal := refusal_after(event)) is not None:
            raise refusal

        def address(file: dict[str, Any]) -> str:
            return f"{root_url(request)}{files.path(file)}"

        body = await asyncio.to_thread(
            lambda: answer(event, asked, files, address).model_dump_json().encode()
        )
        return Response(body, media_type="application/json", headers={"X-Request-Id": drawing.job.id})

    @app.get("/models", response_model=ModelList, responses=errors(401, 413, 500))
    async def list_models() -> ModelList:
        """Every model, those that can run here first, with its defaults and limits."""
        models = await asyncio.to_thread(queue.models)
        cards = [card(engine.catalogue[model["id"]], model) for model in models]
        return ModelList(data=sorted(cards, key=lambda one: not one.available))

    @app.get("/models/{model:path}", response_model=ModelCard, responses=errors(401, 404, 413, 500))
    async def retrieve_model(model: str) -> ModelCard:
        """One model."""
        spec = engine.catalogue[model]
        models = await asyncio.to_thread(queue.models)
        return card(spec, next(one for one in models if one["id"] == spec.id))

    @app.get("/openapi.json", include_in_schema=False)
    async def document(request: Request) -> JSONResponse:
        return JSONResponse(described | {"servers": [{"url": f"{root_url(request)}{PREFIX}"}]})

    described = describe(app.openapi(), queue.models(), keys)
    return app


def _checked(queue: Queue, asked: ImageRequest) -> tuple[Job, bool]:
    """Return the job that a request means, and whether it is known already. Looks at the disk: not for an
    event loop.

    Raises:
        InvalidRequest, ModelUnavailable, StoreError.
    """
    engine = queue.engine
    openais = asked.names_openais(engine.catalogue)
    wanted = None if openais else asked.model
    spec = engine.catalogue[engine.default_model if wanted is None else wanted]
    job = queue.check(asked.values(spec))
    if openais:
        words = f"Drawn with {spec.name} ({spec.id}): {quoted(asked.model)} is a model of OpenAI's."
        job = job.model_copy(update={"warnings": (words, *job.warnings)})
    return job, queue.find(job.id) is not None


UNPREFIXED = (
    "/images/{rest:path}",
    "/models",
    "/models/{rest:path}",
    "/chat/completions",
    "/completions",
    "/responses",
    "/embeddings",
    "/moderations",
    "/audio/{rest:path}",
    "/openai/{rest:path}",
)
"""What a client asks for whose base URL lacks PREFIX, or is Azure's."""


def unprefixed_routes(root_url: Callable[[Request], str]) -> list[Route]:
    """Says to such a client what its base URL must be."""

    async def refused(request: Request) -> Response:
        asked = quoted(f"{request.method} {request.scope['path']}", 120)[1:-1]
        words = (
            f"There is no {asked}: the API for OpenAI's clients is under {PREFIX}. Make the client's base "
            f"URL {root_url(request)}{PREFIX}."
        )
        return Refusal(404, words, "unknown_url").response()

    return [Route(path, refused, methods=["GET", "POST"], include_in_schema=False) for path in UNPREFIXED]


async def last_event(drawing: Subscription, request: Request) -> Event | None:
    """Waits for the drawing's last event; None where the client goes away first."""
    reading = asyncio.ensure_future(_read(drawing))
    leaving = asyncio.ensure_future(_leave(request))
    try:
        await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
        return reading.result() if reading.done() else None
    finally:
        reading.cancel()
        leaving.cancel()
        await asyncio.gather(reading, leaving, return_exceptions=True)


async def _read(drawing: Subscription) -> Event:
    async for event in drawing.events():
        if event.last:
            return event
    raise AssertionError("a drawing's events end with its last")


async def _leave(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
