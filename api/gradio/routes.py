"""What stands in front of Gradio's own routes (6.31) besides the guard of all routes (guard/guard.py): nobody
waits for an answer that doesn't come, and nothing is downloaded for anyone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import gradio as gr
from gradio.route_utils import API_PREFIX
from gradio.server_messages import UnexpectedErrorMessage
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.gradio.bodies import NO_FILES, StrictBodies
from api.gradio.joins import BoundNames, is_name
from api.gradio.patches import queue_of, refuse_file_addresses

ANSWER = re.compile(rf"{API_PREFIX}/call/(?:v2/)?[^/]*/([^/]+)/?$")
"""Where a REST caller fetches the answer to its call."""
UNREAD = f"{API_PREFIX}/queue/data"
"""Where a client reads its session's messages."""
NO_SESSION = "There is no such session, or it is over: call again."
NO_CALL = "There is no such call, or its answer was fetched already: an answer is kept for one reader."


def refuse(status: int, words: str, headers: Mapping[str, str]) -> JSONResponse:
    """Return a refusal as Gradio's own clients read it."""
    return JSONResponse({"detail": words}, status, headers)


class GuardGradio:
    """Middleware in front of Gradio's routes, as this file says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = StrictBodies(BoundNames(app, refuse), refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._app
        if scope["type"] == "http" and scope["method"] == "GET":
            path = get_route_path(scope)
            call = ANSWER.match(path)
            if call and _is_over(scope["app"], call[1]):
                app = refuse(404, NO_CALL, {})
            elif path.rstrip("/") == UNREAD and _is_unknown(scope):
                app = _no_session()
        await app(scope, receive, send)


def _is_unknown(scope: Scope) -> bool:
    """Whether the session whose messages are asked for doesn't exist, or no longer. A name that can't be one
    is refused elsewhere."""
    names = QueryParams(scope["query_string"]).getlist("session_hash")
    sessions = queue_of(scope["app"].get_blocks()).pending_messages_per_session
    return bool(names) and is_name(names[-1]) and names[-1] not in sessions


def _no_session() -> Response:
    """Return what Gradio says of such a session, which its clients go by; Gradio itself then breaks the
    answer off with a traceback."""
    said = UnexpectedErrorMessage(message=NO_SESSION, session_not_found=True)
    return Response(f"data: {json.dumps(said.model_dump())}\n\n", media_type="text/event-stream")


def _is_over(app: Any, call: str) -> bool:
    """Whether nobody has made this call, or its answer was read. Gradio lets such a reader wait for ever, or
    breaks the answer off with a traceback in the log."""
    # Not `event_ids_to_events`: an event stays there a while after its answer was read, until its task ends.
    sessions = queue_of(app.get_blocks()).pending_event_ids_session.values()
    return not any(call in calls for calls in sessions)


class NoFiles(gr.Error):
    """A request named the address of a file."""

    def __init__(self) -> None:
        super().__init__(NO_FILES, print_exception=False)

    def __str__(self) -> str:
        return NO_FILES  # gr.Error's own puts it in quotes


def refuse_downloads() -> None:
    """Make Gradio refuse the address of a file in any endpoint's parameters instead of downloading it."""

    async def refused(*_: Any, **__: Any) -> NoReturn:
        raise NoFiles

    refuse_file_addresses(refused)
