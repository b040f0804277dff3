"""The SDK's streamable HTTP transport (1.30) as http.py uses it: how a request is answered in a session, how
the server ends a session by itself, and what is done about what the transport keeps and logs.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from typing import Any

import anyio
from mcp.server.lowlevel import Server
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.guard.access import MESSAGE
from api.guard.bodies import replay_body
from api.mcp.sessions import Session, Sessions

HEAVY = 8192
"""Bytes of a request, headers and body, from which on a session isn't left to keep it."""
CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError)
"""What the SDK raises, and logs, where a session has ended while it was answering in it."""
OWN_HEADERS = ((b"accept", b"application/json, text/event-stream"), (b"content-type", b"application/json"))


class Transport:
    """The SDK's side of all sessions."""

    def __init__(self, server: Server[Any, Request], sessions: Sessions, idle: float, gone: ASGIApp) -> None:
        """
        Args:
            idle: seconds, see sessions.py. gone: answers a request whose session has ended.
        """
        self._sessions, self._gone = sessions, gone
        # Without the SDK's own bound of sessions: it knows no persons, and refuses everybody.
        self._sdk = StreamableHTTPSessionManager(
            server, session_idle_timeout=idle, max_sessions=None, max_request_body_size=MESSAGE
        )

    def run(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Return the context around all answers; at its end, every session ends."""
        return self._sdk.run()

    async def answer(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request in this session, and read from the answer whether the session has begun or
        ended. Where it ends meanwhile, its other requests are answered as those that come later."""
        begun = whole = False

        async def once(message: Message) -> None:
            nonlocal begun, whole
            if whole or (begun and message["type"] == "http.response.start"):
                return  # of a second answer, to say that the first failed
            if message["type"] == "http.response.start":
                begun, status = True, message["status"]
                if not session.id and status < 400:
                    self._sessions.opened(session, MutableHeaders(scope=message)[MCP_SESSION_ID_HEADER])
                elif status == 404 or (status < 400 and scope["method"] == "DELETE"):
                    self._sessions.forget(session)
            else:
                whole = not message.get("more_body", False)
            await send(message)

        with contextlib.suppress(*CLOSED):
            await self._sdk.handle_request(scope, receive, once)
        if not begun:
            await self._gone(scope, receive, send)
        elif not whole:
            await send({"type": "http.response.body", "body": b""})

    async def end(self, session: Session) -> None:
        """End a session, as its client would."""
        await self._ask(session, "DELETE")

    async def lighten(self, session: Session, request: Request, length: int = 0) -> None:
        """Have the session read a ping after a large request: its loops (SDK 1.30) keep the last message that
        they read, and the request it came in, until the next; a thousand sessions, a thousand requests.

        Args:
            length: of the body that was read, in bytes.
        """
        headers = sum(len(name) + len(value) for name, value in request.scope["headers"])
        if headers + length > HEAVY:
            await self._ask(
                session, "POST", f'{{"jsonrpc": "2.0", "id": "{uuid.uuid4()}", "method": "ping"}}'
            )

    async def _ask(self, session: Session, method: str, body: str = "") -> None:
        """Send a request of the server's own; nobody reads the answer."""
        headers = [(MCP_SESSION_ID_HEADER.encode(), session.id.encode()), *OWN_HEADERS]
        scope = {"type": "http", "method": method, "path": "/mcp", "query_string": b"", "headers": headers}

        async def forever() -> Message:
            await anyio.sleep_forever()
            raise AssertionError  # for the type checker

        async def unread(_: Message) -> None:
            pass

        await self.answer(session, scope, replay_body(body.encode(), forever), unread)


def silence_ended_sessions() -> None:
    """Keep out of the transport's log the traceback that it writes for each session that ends in use."""
    logging.getLogger("mcp.server.streamable_http").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is anything else than that a session has ended which had its stream open, or was asked
    something at that moment."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, BaseExceptionGroup):
        return error.split(CLOSED)[1] is not None
    return not isinstance(error, CLOSED)
