"""How HTTP reaches the MCP server: one ASGI app for /mcp, over the SDK's streamable HTTP transport.

It adds what the transport lacks: a client that leaves is noticed, bodies are read strictly, and a browser
gets an explanation. The tools are mcp.py's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import INTERNAL_ERROR, INVALID_REQUEST
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.mcp import RootUrl, mcp_server
from api.pictures import PictureFiles

if TYPE_CHECKING:
    from jobs.queue import Queue

MOST_BYTES = 2**20
"""Of one request. The longest, two texts of 10,000 characters in escapes, takes 240 KB."""
IDLE = 30 * 60
"""Seconds without any request after which a session is ended; its client then has to begin another. A client
that keeps its stream of notifications open, as the SDKs do, is never idle."""
MOST_SESSIONS = 1000
"""Open at once; one more is refused with 503. A session takes 60 KB until it ends, and most clients that are
killed or closed never end theirs."""
ABOUT = """This is the MCP server of Stepwise: it is for language models, not for browsers.
To add it to an assistant, give the assistant this page's address, and "HTTP" as the transport.
It has two tools: draw and list_models. The page for people is at / instead."""
TOO_LONG = f"The request's body is longer than {MOST_BYTES:,} bytes, the most that is read."
NOT_JSON = (
    "The request's body is not JSON that can be read: expected one JSON-RPC message, in UTF-8, and in it "
    "neither NaN nor Infinity."
)


class Visit:
    """One HTTP request of a client, for the call it carries to learn that the client has left."""

    def __init__(self) -> None:
        self._left = False
        self._then: list[Callable[[], None]] = []

    def on_leaving(self, then: Callable[[], None]) -> None:
        """Calls `then` once the request has ended, however; at once if it has already."""
        if self._left:
            then()
        else:
            self._then.append(then)

    def leave(self) -> None:
        """The request has ended: it was answered, or its client is gone."""
        self._left = True
        for then in self._then:
            then()


class McpApp:
    """The ASGI app for /mcp. Its `lifespan` must run around it, once.

    Sessions are kept, though the transport can do without: a client's `notifications/cancelled` is a request
    of its own, and names the call to cancel by a number that means nothing outside a session.
    """

    def __init__(
        self,
        server: Server[Any, Request],
        idle: float = IDLE,
        most_sessions: int = MOST_SESSIONS,
    ) -> None:
        """
        Args:
            idle: seconds, see IDLE.
        """
        self._sessions = StreamableHTTPSessionManager(
            server, session_idle_timeout=idle, max_sessions=most_sessions, max_request_body_size=MOST_BYTES
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """Ends every session, and with it what it draws, when the app ends."""
        async with self._sessions.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        accepted = request.headers.get("accept", "")
        if request.method in ("GET", "HEAD") and "text/event-stream" not in accepted:
            await PlainTextResponse(ABOUT)(scope, receive, send)
        elif request.method == "POST":
            await self._post(request, _exposing(send))
        else:
            await self._sessions.handle_request(scope, receive, _exposing(send))

    async def _post(self, request: Request, send: Send) -> None:
        try:
            body = await _body(request)
        except ClientDisconnect:
            return
        # The SDK (1.30) answers some of what is no JSON with 500, and a traceback in the log.
        if body is None or not _is_json(body):
            status, words = (413, TOO_LONG) if body is None else (400, NOT_JSON)
            await refusal(status, words)(request.scope, request.receive, send)
            return
        visit = request.state.visit = Visit()
        try:
            # Returns when the answer is sent, and also when the client has closed the connection. By the
            # protocol, closing alone is no cancelling: a client might come back for the answer. Here it
            # can't, for no answer is kept to be fetched again: drawing on would be for nobody.
            await self._sessions.handle_request(request.scope, _again(body, request.receive), send)
        finally:
            visit.leave()


def mcp_app(queue: Queue, files: PictureFiles, root_url: RootUrl) -> McpApp:
    """The MCP server over this queue.

    Args:
        files: where finished PNGs are kept for download.
    """
    logging.getLogger("mcp.server.streamable_http").addFilter(_is_news)
    return McpApp(mcp_server(queue, files, root_url))


def mcp_routes(app: ASGIApp) -> list[Route]:
    """/mcp and /mcp/: a redirect from one to the other would lose some clients' POST."""
    return [Route(path, app, include_in_schema=False) for path in ("/mcp", "/mcp/")]


def refusal(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal before the protocol has begun, in its shape."""
    error = {"code": INVALID_REQUEST, "message": words}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status, headers)


def failure(status: int, words: str, headers: Mapping[str, str]) -> Response:
    """What got past all handlers (shapes.py), in this shape."""
    code = INTERNAL_ERROR if status >= 500 else INVALID_REQUEST
    return JSONResponse(
        {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": words}}, status, headers
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Not: that a session has ended which had its stream open. The SDK (1.30) logs a traceback for each."""
    return record.exc_info is None or not isinstance(record.exc_info[1], anyio.ClosedResourceError)


async def _body(request: Request) -> bytes | None:
    """The whole body; None where it is longer than MOST_BYTES."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _is_json(body: bytes) -> bool:
    """Strictly: NaN, Infinity and 1e400 are none. The SDK (1.30) would make null of them, the default."""
    try:
        json.loads(body, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):  # also: no UTF-8, a number of 5,000 digits, 100,000 brackets
        return False
    return True


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(number)
    return float(number)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body first."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _exposing(send: Send) -> Send:
    """Lets a web page's script read the session's id; Gradio's CORS middleware (6.31) exposes no header."""

    async def exposing(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Access-Control-Expose-Headers"] = MCP_SESSION_ID_HEADER
        await send(message)

    return exposing
