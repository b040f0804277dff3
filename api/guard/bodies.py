"""How large a request's body may be, how long it may take, and that it is not compressed."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.guard.access import ACCESS, REFUSE, Refuse
from pipeline.errors import quoted

GZIP = b"\x1f\x8b"
"""How a file of gzip begins, and no JSON."""
MOST_SECONDS = 60.0
"""For one body to arrive in: 17 KB a second, for the longest."""


class BoundBody:
    """Middleware that reads the body before the app does. It refuses one past its route's bound with 413,
    whether or not it said its length, one that doesn't arrive with 408, and a compressed one, which no app
    here reads, with 415. The app gets the body as one message; its answer is not touched."""

    # Starlette's RequestBodyLimitMiddleware (1.10) answers in plain text, whatever the app would say.

    def __init__(self, app: ASGIApp, seconds: float = MOST_SECONDS) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, refuse, most = Headers(scope=scope), scope[REFUSE], scope[ACCESS].most_bytes
        length, coding = headers.get("content-length", ""), headers.get("content-encoding", "")
        some = length not in ("", "0") or "transfer-encoding" in headers
        if some and coding.lower() not in ("", "identity"):
            await self._encoded(refuse, quoted(coding))(scope, receive, send)
            return
        too_long = length.isdecimal() and int(length) > most
        body, more, end = bytearray(), True, time.monotonic() + self._seconds
        while more and not too_long:
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except TimeoutError:
                words = f"The request's body didn't arrive within {self._seconds:g} seconds."
                await refuse(408, words, {"Connection": "close"})(scope, receive, send)
                return
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more, too_long = message.get("more_body", False), len(body) > most
        if too_long:
            words = f"The request's body is longer than {most:,} bytes, the most that is read."
            await refuse(413, words, {})(scope, receive, send)
            return
        if body.startswith(GZIP):
            await self._encoded(refuse, "gzip, though no header says so")(scope, receive, send)
            return
        await self._app(scope, replay_body(bytes(body), receive), send)

    @staticmethod
    def _encoded(refuse: Refuse, coding: str) -> Response:
        words = (
            f"The request's body is encoded as {coding}, and compressed ones aren't read here: send it as it "
            "is, without Content-Encoding."
        )
        return refuse(415, words, {"Accept-Encoding": "identity"})


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives this whole body first."""
    return replay_first({"type": "http.request", "body": body, "more_body": False}, receive)


def replay_first(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives this message first."""
    left = [message]

    async def once() -> Message:
        return left.pop() if left else await receive()

    return once
