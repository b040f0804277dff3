"""/generate, /models and /stop: the app as an API, for gradio_client, REST and the API page.

They are events of their own, not the page's widgets: a Slider refuses null and its value would become the
API's default. Their names, parameters and outputs are a contract (README, "Use it from a program").
"""
# No `from __future__ import annotations`: gr.api (6.31) reads the signature's annotations as they stand.

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from api.gradio.api_page import EXAMPLES, NO_JOB, correct_snippets, describe
from api.gradio.patches import keep_file_paths, set_validator
from api.pictures import FOLDER, PictureFiles
from api.start_job import start_job
from api.visitor import asking
from jobs.store.models import Lifetime
from jobs.store.models import describe as describe_job
from pipeline.errors import InvalidRequest, ModelUnavailable, StepwiseError
from pipeline.parameters import PARAMETERS, parameters
from pipeline.request import job_id

if TYPE_CHECKING:
    from jobs.lifecycle.subscription import Subscription
    from jobs.queue import Queue

TYPES = {"text": str, "whole": int, "number": float, "seed": int, "id": str}
"""What Gradio is told that a parameter is, by kind."""
YIELDED = tuple[list[dict[str, Any]], dict[str, Any]]
"""One yield of /generate's: gr.api wants its type instead of the iterator's."""
GENERATE = """Draws pictures and streams every step: each yield is (images, info), the last one has the
finished PNGs. Bounds and defaults differ between models: /models has them."""
MODELS = "Every model with its defaults and limits, whether it can run here, and if not, why."
AGAIN = 5.0
"""Seconds: a job that waits is told this often, for Gradio (6.31) notices that a client has gone only when it
sends it something; else a killed client would keep its place in the line."""
JOB = """Follows a job by its id: streams what /generate does, from the start of its drawing to its end, also
after a reload, a restart of the server, or for a second reader. An id that isn't known gets phase unknown."""
JOBS = """The caller's own jobs, the newest first, at most 200: those of the user who is logged in, else of
this session."""
ID = "The job's id, as info gives it."
STOP = "Ends the job with this id within one step, and no other; answers how it ended."


def add_endpoints(demo: gr.Blocks, queue: "Queue") -> None:
    """Adds the endpoints to the page; called in its context."""
    files = PictureFiles(queue.folder.logs)

    async def generate(*values: Any) -> AsyncIterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
        async for pictures, info in draw(queue, dict(zip(PARAMETERS, values, strict=False)), files):
            yield pictures, info

    async def follow(job: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:  # type: ignore[misc]
        async for pictures, info in follow_job(queue, job, files):
            yield pictures, info

    async def jobs() -> list[dict[str, Any]]:
        records = await asyncio.to_thread(queue.listed_for, asking(queue.limits.first))
        return [describe_job(record) for record in records]

    async def models() -> list[dict[str, Any]]:
        return await asyncio.to_thread(queue.models)

    async def stop(job: str) -> dict[str, Any]:
        return await stop_job(queue, job)

    async def refusals(*values: Any) -> list[dict[str, Any]]:
        problems = await asyncio.to_thread(_problems, queue, dict(zip(PARAMETERS, values, strict=False)))
        return [gr.validate(name not in problems, problems.get(name, "")) for name in PARAMETERS]

    _declare(generate)
    gr.api(generate, api_name="generate", api_description=GENERATE, concurrency_limit=None)
    gr.api(follow, api_name="job", api_description=JOB, concurrency_limit=None)
    gr.api(jobs, api_name="jobs", api_description=JOBS, queue=False)
    gr.api(models, api_name="models", api_description=MODELS, queue=False)
    gr.api(stop, api_name="stop", api_description=STOP, queue=False)

    functions = {function.api_name: function for function in demo.fns.values()}
    set_validator(functions["generate"], refusals)
    describe(functions["generate"], words_of_parameters(), ["images", "info"], EXAMPLES)
    describe(functions["job"], {"job": ID}, ["images", "info"], {"job": NO_JOB})
    describe(functions["jobs"], {}, ["jobs"], {})
    describe(functions["models"], {}, ["models"], {})
    describe(functions["stop"], {"job": ID}, ["info"], {"job": NO_JOB})
    correct_snippets()
    for name in ("generate", "job"):
        keep_file_paths(functions[name].outputs[0], FOLDER)


def _declare(generate: Any) -> None:
    """Gives /generate's function the signature that the declarations mean: gr.api reads the parameters
    there."""
    declared = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if one.required else None,
            annotation=TYPES[one.kind] if one.required else TYPES[one.kind] | None,
        )
        for one in parameters()
    ]
    generate.__signature__ = inspect.Signature(declared, return_annotation=YIELDED)
    generate.__annotations__ = {one.name: one.annotation for one in declared} | {"return": YIELDED}


def words_of_parameters() -> dict[str, str]:
    """What the API page says of /generate's parameters, by name."""
    return {one.name: one.about if one.required else f"{one.about} {one.null}" for one in parameters()}


async def draw(
    queue: "Queue", values: Mapping[str, Any], files: PictureFiles
) -> AsyncIterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Starts a job and yields (images, info) until it ends. What becomes of it when this is closed before,
    depends on whether its caller chose its id (models.Lifetime).

    Raises:
        gr.Error: in the refusal's own words.
    """
    lifetime: Lifetime = "detached" if values.get("job") else "attached"
    try:
        following = await start_job(queue, await asyncio.to_thread(queue.check, values), lifetime)
    except StepwiseError as error:
        raise gr.Error(str(error), print_exception=False) from None
    async for event in following.events(repeat_after=AGAIN):
        yield files.gallery(event), event.info()


async def follow_job(
    queue: "Queue", job: Any, files: PictureFiles
) -> AsyncIterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Yields (images, info) of a job from the start of its drawing to its end."""
    following = await find_job(queue, job)
    if following is None:
        yield [], {"job": _known_id(job), "phase": "unknown"}
        return
    async for event in following.events(repeat_after=AGAIN, from_start=True):
        yield files.gallery(event), event.info()


async def stop_job(queue: "Queue", job: Any) -> dict[str, Any]:
    """Stops a job and says how it ended; an id that isn't known is answered as unknown."""
    following = await find_job(queue, job)
    if following is None:
        return {"job": _known_id(job), "phase": "unknown"}
    following.stop()
    async for event in following.events():
        if event.last:
            return event.info()
    raise AssertionError("a job's events end with its last")


async def find_job(queue: "Queue", job: Any) -> "Subscription | None":
    """The job with this id, however the client wrote it; None: unknown."""
    known = _known_id(job)
    return None if known is None else await asyncio.to_thread(queue.find, known)


def _known_id(job: Any) -> str | None:
    """The id as a job has it, however the client wrote it; None: no job can have it."""
    try:
        return job_id(job)
    except ValueError:
        return None


def _problems(queue: "Queue", values: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong with these parameters, by name: asked before the queue, so total. Looks at the disk: not
    for an event loop."""
    try:
        queue.check(values)
    except InvalidRequest as error:
        return {name if name in PARAMETERS else "prompt": words for name, words in error.problems.items()}
    except ModelUnavailable as error:
        return {"model": str(error)}
    return {}
