"""Every error in the shape of the API that was asked, whatever raised it: what stands in front of all routes.

An API's own handlers say what they know. Here is what gets past them: an exception that nobody foresaw, an
answer that is cut because the server ends, and no answer at all; and what the framework says of paths and
methods that there aren't.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.exception_handlers import http_exception_handler
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.guard.access import Refuse, under
from pipeline.errors import AWAY, ServerEnding, quoted

log = logging.getLogger("stepwise")

UNFORESEEN = "Something went wrong in the server; its log has the details."
ENDING = "The server is ending, and doesn't answer this any more."


@dataclass(frozen=True)
class Shape:
    """How an API tells its errors. refuse: makes the answer to what the guard in front of it refuses. fail:
    to what got past all handlers; None: the same. event: the same as the last event of a stream that has
    begun (its status was sent), as bytes; None: such a stream is broken off."""

    refuse: Refuse
    fail: Refuse | None = None
    event: Callable[[int, str], bytes] | None = None


class ErrorsInShape:
    """Middleware that always answers, and with errors in the shape of the API that was asked."""

    def __init__(
        self, app: ASGIApp, shapes: Mapping[str, Shape], other: Shape, closing: Callable[[], bool]
    ) -> None:
        """
        Args:
            shapes: by what their paths begin with. other: of all other paths.
            closing: whether the server ends.
        """
        self._app, self._shapes, self._other, self._closing = app, shapes, other, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Now: a mounted app changes what its path is.
        shape = shape_of(self._shapes, get_route_path(scope)) or self._other
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not self._closing() or not await self._complete(answer, shape, scope, receive):
                raise
        except Exception as error:
            if not await self._complete(answer, shape, scope, receive):
                raise  # uvicorn logs it, and closes the connection: that says that the answer isn't whole
            asked = f"{scope['method']} {quoted(scope['path'], 120)}"
            log.error("%s failed: %s", asked, type(error).__name__, exc_info=error)
        else:
            if not answer.begun:
                await self._complete(answer, shape, scope, receive)

    async def _complete(self, answer: _Answer, shape: Shape, scope: Scope, receive: Receive) -> bool:
        """Complete the answer that was begun. Return False where it can't be completed."""
        if answer.whole:
            return True
        closing = self._closing()
        status, words = (503, f"{ServerEnding(ENDING)}") if closing else (500, UNFORESEEN)
        if not answer.begun:
            headers = {"Retry-After": f"{AWAY:.0f}"} if closing else {}
            await (shape.fail or shape.refuse)(status, words, headers)(scope, receive, answer.send)
        elif answer.streams and shape.event is not None:
            await answer.send({"type": "http.response.body", "body": shape.event(status, words)})
        else:
            return False
        return True


class _Answer:
    """What was sent of an answer so far."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = self.whole = self.streams = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            kind = Headers(raw=message.get("headers", ())).get("content-type", "")
            self.streams = kind.startswith("text/event-stream")
        elif message["type"] == "http.response.body":
            self.whole = not message.get("more_body", False)
        await self._send(message)


def shape_of(shapes: Mapping[str, Any], path: str) -> Any:
    """Return the shape of this path, or None if it has none of its own."""
    return next((shape for start, shape in shapes.items() if under(path, start)), None)


def http_errors(shapes: Mapping[str, Shape]) -> dict[Any, Any]:
    """Return an entry of `exception_handlers`: what the framework raises for a path or a method that doesn't
    exist, in these shapes."""

    async def in_shape(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        shape: Shape | None = shape_of(shapes, get_route_path(request.scope))
        if shape is None:
            return await http_exception_handler(request, error)
        words = f"{request.method} {quoted(request.url.path, 120)[1:-1]}: {error.detail}."
        return (shape.fail or shape.refuse)(error.status_code, words, error.headers or {})

    return {HTTPException: in_shape}
