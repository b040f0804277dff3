"""How long a connection may keep silent before it has asked anything, and how many may be open: what uvicorn
(0.54) leaves to a proxy in front of it, and a laptop or a Space's container has none of its own. Who listens
with this protocol stands in listening.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_WITHIN = 30.0
"""Seconds for a request's headers to arrive in. Its body's time is bounded in guard/bodies.py."""
MOST_FILES = 65536
"""Open files and connections that are asked for; a shell's usual 1,024 are not many visitors."""


class HeaderTimeoutProtocol(H11Protocol):
    """uvicorn's HTTP protocol, which closes a connection whose next request doesn't complete its headers
    within a time. uvicorn's own bound (`timeout_keep_alive`) begins after the first answer, and ends with the
    first byte of the next request. Can go when uvicorn has a timeout for headers."""

    within = HEADERS_WITHIN
    """Seconds."""
    _deadline: asyncio.TimerHandle | None = None

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.app = _with_host(self.app)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP. Where that is in the body, a route has been asked and may have answered
        already: two answers on one connection are an error for whoever comes second (uvicorn logs it)."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        with contextlib.suppress(h11.LocalProtocolError):  # an answer has begun, or, as HEAD's, has no body
            super().send_400_response(msg)
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Start the timer while headers are awaited (h11's IDLE), and stop it once they are there."""
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.within, self._late)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


def _with_host(app: Any) -> Any:
    """Return the app, each of whose requests has a Host: HTTP/1.0 does without (HAProxy's health checks), and
    Gradio's CORS (6.31), which comes before all of ours, fails at it."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not any(name == b"host" for name, _ in scope["headers"]):
            host, port = scope["server"] or ("localhost", 80)  # a Unix socket's
            name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            scope = {**scope, "headers": [*scope["headers"], (b"host", name.encode())]}
        await app(scope, receive, send)

    return call


def raise_file_limit(most: int = MOST_FILES) -> None:
    """Let this process have up to `most` files open, if the system allows it and that is more than now."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower bound of the system's
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
