"""What stands in front of Gradio's own routes (6.31): bodies are bounded, routes that Stepwise has no use for
are closed, and nothing is fetched for anyone. The routes beside Gradio's have guards of their own (guard.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils, routes
from gradio.route_utils import API_PREFIX
from starlette.responses import JSONResponse
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.gradio_bodies import NO_FILES, StrictBodies
from api.guard import BoundBody, under
from pipeline.errors import SettingError

CLOSED = re.compile(
    rf"""{API_PREFIX}/(
        upload | process_recording | component_server | stream/   # takes files, keeps or converts them
        | proxy= | file/                                           # fetches or reads what a stranger names
        | deep_link | dev/ | run-history/ | custom_component/      # writes files, wakes 20 times a second
    ) | /monitoring | /pwa_icon/                                   # resizes the icon to any size
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What the path begins with. Gradio checks that an address is public before it fetches it, but lets pass
100.64.0.0/10 and 192.0.0.192, a cloud's own services. Uploads have no bound of their number."""
ANSWER = re.compile(rf"{API_PREFIX}/call/(?:v2/)?[^/]*/([^/]+)/?$")
"""Where a REST caller fetches the answer to its call."""
NO_CALL = "There is no such call, or its answer was fetched already: an answer is kept for one reader."
NOT_HERE = "Stepwise has no use for this route of Gradio's, and doesn't answer it."


def refuse(status: int, words: str, headers: Mapping[str, str]) -> JSONResponse:
    """A refusal as Gradio's own clients read it."""
    return JSONResponse({"detail": words}, status, headers)


class GuardGradio:
    """The app, guarded as this file says; paths under `others` are left to themselves."""

    def __init__(self, app: ASGIApp, others: tuple[str, ...]) -> None:
        self._app, self._others = app, others
        self._bounded = BoundBody(StrictBodies(app, refuse), refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = get_route_path(scope) if scope["type"] == "http" else ""
        if scope["type"] != "http" or any(under(path, one) for one in self._others):
            await self._app(scope, receive, send)
        elif CLOSED.match(path):
            await refuse(404, NOT_HERE, {})(scope, receive, send)
        elif scope["method"] == "GET" and (call := ANSWER.match(path)) and _is_over(scope["app"], call[1]):
            await refuse(404, NO_CALL, {})(scope, receive, send)
        else:
            await self._bounded(scope, receive, send)


def _is_over(app: Any, call: str) -> bool:
    """Whether nobody has made this call, or its answer was read. Gradio lets such a reader wait for ever, or
    breaks the answer off with a traceback in the log."""
    queue = app.get_blocks()._queue
    sessions = queue.pending_event_ids_session.values()
    return call not in queue.event_ids_to_events and not any(call in calls for calls in sessions)


class NoFiles(gr.Error):
    """A request named a file's address."""

    def __init__(self) -> None:
        super().__init__(NO_FILES, print_exception=False)

    def __str__(self) -> str:
        return NO_FILES  # gr.Error's own puts it in quotes


def keep_gradio_to(folder: Path) -> None:
    """Gives Gradio a folder of ours for what it makes when it starts (6.31: an empty one). It would take
    /tmp/gradio, which all accounts of a machine share, or what GRADIO_TEMP_DIR says; that goes on to hold.

    Raises:
        SettingError: nothing can be written to GRADIO_TEMP_DIR.
    """
    if own := os.environ.get("GRADIO_TEMP_DIR"):
        folder = Path(own)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "vibe_edit_history").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"GRADIO_TEMP_DIR is {folder}, where nothing can be written: {error.strerror or error}. Name "
            "another folder, or leave it out."
        ) from error
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    assert routes.DEFAULT_TEMP_DIR  # there to be replaced: Gradio read the variable when it was imported
    routes.DEFAULT_TEMP_DIR = str(folder)


def fetch_nothing() -> None:
    """Makes Gradio refuse an address in any endpoint's parameters: it takes {"path": "http…", "meta": …} for
    a file, whatever the parameter, and downloads it, of any length, before it looks at anything else."""

    async def refused(*_: Any, **__: Any) -> NoReturn:
        raise NoFiles

    for name in ("async_ssrf_protected_get", "async_ssrf_protected_download"):
        getattr(processing_utils, name)  # there to be replaced
        setattr(processing_utils, name, refused)
