"""Which routes there are, as the app itself has them: the only place of the fuzzer's that knows how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradio.routes import App
from starlette.routing import Mount

from api.auth.login import Login
from api.gradio.patches import no_app
from api.openai.routes import PREFIX, openai_app
from api.pictures import PictureFiles
from api.routes import app_options
from jobs.queue import Queue
from ui.page import build_page


def every_route(queue: Queue, login: Login | None) -> list[tuple[str, str]]:
    """Method and path of every route of an app over this queue; a path's parameters stand in braces.

    Args:
        login: how one logs in there; None: nobody need.
    """
    demo = build_page(queue, login is not None)
    with no_app():
        demo.queue(api_open=False)
    app = App.create_app(demo, app_kwargs=app_options(demo, queue, (), login))
    openai = openai_app(queue, PictureFiles(Path()), lambda _: "", keys=False)
    return sorted(set(_routes(app.routes, openai.routes)))


def _routes(routes: list[Any], openais: list[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if (
            original := getattr(route, "original_router", None)
        ) is not None:  # FastAPI's (0.165) `include_router`
            yield from _routes(original.routes, openais)
        elif isinstance(route, Mount):  # ours, around which stand guards that hide its routes
            assert route.path == PREFIX
            yield from ((method, PREFIX + path) for method, path in _routes(openais, []))
        else:
            yield from ((method, route.path) for method in route.methods or ("GET", "POST", "DELETE"))
