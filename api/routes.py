"""The routes beside Gradio's own, put together: what `Blocks.launch` is given as `app_kwargs`.

Given there, they are part of the app from its first answer on. What they do stands in modules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import Request
from pydantic import SecretStr
from starlette.middleware import Middleware

from api.auth.browser_login import EndStreamsWithLogin
from api.auth.keys import AskForKey
from api.auth.login import AskForLogin, Login
from api.gradio.joins import call_rates
from api.gradio.refusals import HANDLERS
from api.gradio.routes import GuardGradio, refuse_downloads
from api.gradio.routes import refuse as refuse_as_gradio
from api.guard.access import Access, Table
from api.guard.error_shapes import ErrorsInShape, Shape, http_errors
from api.guard.guard import AllowListed, Guard
from api.guard.sites import Sites
from api.mcp.http import failure, mcp_app, mcp_routes, refusal
from api.openai.errors import fail, refuse
from api.openai.routes import PREFIX, openai_app, unprefixed_routes
from api.openai.stream import last_of
from api.pictures import PictureFiles
from api.server.behind_proxy import BehindProxy, app_address
from api.server.health import PATHS as HEALTH
from api.server.health import health_routes
from api.server.health import refuse as refuse_as_health
from api.server.prefix_routes import PrefixMount
from api.visitor import WithGradioContext

if TYPE_CHECKING:
    from jobs.queue import Queue


MCP = "/mcp"


def app_options(
    demo: gr.Blocks,
    queue: Queue,
    keys: Sequence[SecretStr] = (),
    login: Login | None = None,
    sites: Sites | None = None,
) -> dict[str, Any]:
    """Return all of `app_kwargs`.

    Args:
        demo: the page, with the endpoints added.
        keys: what programs must send one of; none: everyone may.
        login: how one logs in; None: nobody need.
        sites: under which names the server answers, and whose pages may call it; None: nothing is set.
    """

    def root_url(request: Request) -> str:
        return app_address(request, demo.root_path)

    files = PictureFiles(queue.folder.logs)
    openai = openai_app(queue, files, root_url, bool(keys or login))
    mcp = mcp_app(queue, files, root_url)
    refuse_downloads()
    shapes = {
        PREFIX: Shape(refuse, lambda *given: fail(*given).response(), lambda *given: last_of(fail(*given))),
        MCP: Shape(refusal, failure),
        **dict.fromkeys(HEALTH, Shape(refuse_as_health)),
        **{path: Shape(how) for path, how in (login.shapes if login else {}).items()},
    }
    table = Table(login.access) if login else Table()

    def asks(access: Access) -> bool:
        return bool(login or (keys and access.who == "program"))

    return {
        # The first is the outermost: all others see one way to write a path. Who isn't let in sends no body.
        "middleware": [
            Middleware(BehindProxy),
            Middleware(
                ErrorsInShape, shapes=shapes, other=Shape(refuse_as_gradio), closing=lambda: queue.closing
            ),
            Middleware(
                Guard,
                table=table,
                sites=sites or Sites(),
                refusals={path: shape.refuse for path, shape in shapes.items()},
                other=refuse_as_gradio,
                asks=asks,
            ),
            *(
                [
                    Middleware(EndStreamsWithLogin, logins=login.browsers),
                    Middleware(AskForLogin, login=login, keys=keys),
                ]
                if login
                else [Middleware(AskForKey, keys=keys)]
            ),
            Middleware(AllowListed, table=table, counted=call_rates(queue.limits.rate)),
            Middleware(GuardGradio),
        ],
        "exception_handlers": HANDLERS | http_errors(shapes),
        "lifespan": mcp.lifespan,
        "routes": [
            *(login.routes() if login else ()),
            PrefixMount(PREFIX, WithGradioContext(openai, demo)),
            *unprefixed_routes(root_url),
            files.route(),
            *health_routes(demo, queue),
            *mcp_routes(WithGradioContext(mcp, demo)),
        ],
    }
