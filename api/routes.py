"""The routes beside Gradio's own, put together: what `Blocks.launch` is given as `app_kwargs`.

Given there, they are part of the app from its first answer on. What they do stands in modules of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import Request
from gradio.route_utils import get_root_url
from pydantic import SecretStr
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import ASGIApp

from api.addressed import Addressed
from api.behind_proxy import BehindProxy
from api.gradio_routes import GuardGradio, fetch_nothing
from api.gradio_routes import refuse as refuse_as_gradio
from api.guard import Refuse, guarded
from api.health import PATHS as HEALTH
from api.health import health_routes
from api.health import refuse as refuse_as_health
from api.login import AskForLogin, Login
from api.mcp_http import failure, mcp_app, mcp_routes, refusal
from api.openai_errors import fail, refuse
from api.openai_routes import PREFIX, openai_app, unprefixed_routes
from api.openai_stream import last_of
from api.pictures import PictureFiles
from api.refusals import HANDLERS
from api.shapes import ErrorsInShape, Shape, http_errors
from api.visitor import seen_from_gradio

if TYPE_CHECKING:
    from jobs.queue import Queue


MCP = "/mcp"


def app_options(
    demo: gr.Blocks, queue: Queue, keys: Sequence[SecretStr] = (), login: Login | None = None
) -> dict[str, Any]:
    """All of `app_kwargs`.

    Args:
        demo: the page, with the endpoints added.
        keys: what programs must send one of; none: everyone may.
        login: how one logs in; None: nobody need.
    """

    def root_url(request: Request) -> str:
        # As Gradio (6.31) finds it for its own files: proxies' headers and GRADIO_ROOT_PATH. Not from the
        # path that was asked for, in which anything may stand.
        return get_root_url(Request({**request.scope, "path": "/", "query_string": b""}), "/", demo.root_path)

    files = PictureFiles(queue.folder.logs)
    closed = bool(keys or login)
    openai = openai_app(queue, files, root_url, closed)
    mcp = mcp_app(queue, files, root_url, closed)
    fetch_nothing()
    shapes: dict[str, Refuse] = {PREFIX: refuse, MCP: refusal}
    failures = {
        PREFIX: Shape(lambda *given: fail(*given).response(), lambda *given: last_of(fail(*given))),
        MCP: Shape(failure),
        **dict.fromkeys(HEALTH, Shape(refuse_as_health)),
        **{path: Shape(how) for path, how in (login.shapes if login else {}).items()},
    }
    middleware = [Middleware(GuardGradio, others=tuple(shapes))]
    if login:
        ask = Middleware(AskForLogin, login=login, keys=keys, shapes=shapes, other=refuse_as_gradio)
        middleware.insert(0, ask)  # the outer: who isn't let in sends no body
    in_shape = Middleware(
        ErrorsInShape, shapes=failures, other=Shape(refuse_as_gradio), closing=lambda: queue.closing
    )
    addressed = Middleware(Addressed, shapes=failures, other=Shape(refuse_as_gradio))
    return {
        # The first is the outermost: all others see one way to write a path.
        "middleware": [Middleware(BehindProxy), in_shape, addressed, *middleware],
        "exception_handlers": HANDLERS | http_errors(failures),
        "lifespan": mcp.lifespan,
        "routes": [
            *(login.routes() if login else ()),
            Below(PREFIX, guarded(seen_from_gradio(openai, demo), refuse, keys)),
            *unprefixed_routes(root_url),
            files.route(),
            *health_routes(demo, queue),
            *mcp_routes(guarded(seen_from_gradio(mcp, demo), refusal, keys)),
        ],
    }


class Below(Mount):
    """All of this prefix. Starlette's own Mount (1.10) leaves a path with a line break in it to the routes
    after it: here to Gradio, with its answers and without the guard."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)
