"""What stands in front of a program's routes: the key they ask for, and the bound of a request's body.

ASGI middlewares that know nothing of the app they wrap: how a refusal looks is given to them. What else
Gradio's own routes are behind stands in gradio_routes.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import quoted

LET_IN = "stepwise.let_in"
"""Of an ASGI scope: it is there where who asks has shown who they are already (login.py)."""
KEY = "stepwise.key"
"""Of an ASGI scope: which of the keys was sent, by the first 16 hex digits of its digest; not there where
none was."""
Refuse = Callable[[int, str, Mapping[str, str]], Response]
"""Renders a refusal: its status, its words and its headers."""

MOST_BYTES = 2**20
"""Of one body. The longest request has four texts of 10,000 characters; each character written as two \\u
escapes, that is 480 KB."""
GZIP = b"\x1f\x8b"
"""How a file of gzip begins, and no JSON."""
MOST_SECONDS = 60.0
"""For one body to arrive in: 17 KB a second, for the longest."""


def guarded(app: ASGIApp, refuse: Refuse, keys: Sequence[SecretStr] = ()) -> ASGIApp:
    """This app behind both: who has no key is refused before the body is read."""
    return AskForKey(BoundBody(app, refuse), refuse, keys)


def access_notice(keys: Sequence[SecretStr], who: str = "") -> str:
    """The line at the start that says who may use the routes.

    Args:
        who: may log in (STEPWISE_LOGIN), and how; empty: there is no login.
    """
    if who:
        also = f", or on /v1 and /mcp one of the {len(keys)} keys in STEPWISE_API_KEYS" if keys else ""
        return f"All but /livez, /readyz and the login page asks for a login, {who}{also}."
    if not keys:
        return "No STEPWISE_API_KEYS: /v1 and /mcp are open to everyone who reaches this address."
    return (
        f"/v1 and /mcp ask for a key, one of the {len(keys)} in STEPWISE_API_KEYS. The page and Gradio's own "
        "endpoints (/gradio_api) do not."
    )


class AskForKey:
    """Lets those through that send `Authorization: Bearer` and one of the keys; everyone where there are
    no keys."""

    def __init__(self, app: ASGIApp, refuse: Refuse, keys: Sequence[SecretStr]) -> None:
        self._app, self._refuse = app, refuse
        # Digests: equally long, so that the time of a comparison doesn't tell a key's length.
        self._keys = [digest(key.get_secret_value().encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._keys or scope.get(LET_IN) or self.known(scope):
            await self._app(scope, receive, send)
            return
        words = (
            "This server asks for a key: send one of its keys as “Authorization: Bearer …”."
            if "authorization" not in Headers(scope=scope)
            else "This is none of the server's keys; it expects one as “Authorization: Bearer …”."
        )
        await self._refuse(401, words, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def known(self, scope: Scope) -> bool:
        """Whether the request has one of the keys."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        given_digest = digest(key.strip())
        # A list, not a generator: every key is compared, whichever of them it is.
        same = any([hmac.compare_digest(given_digest, known) for known in self._keys])  # noqa: C419
        is_known = same and scheme.lower() == b"bearer"
        if is_known:
            scope[KEY] = given_digest.hex()[:16]
        return is_known


class BoundBody:
    """Reads the body before the app does, and refuses one past the bound with 413, whether or not it said
    its length, one that doesn't arrive with 408, and a compressed one, which no app here reads, with 415.
    The app gets it whole; its answer is not touched."""

    # Starlette's RequestBodyLimitMiddleware (1.10) answers in plain text, whatever the app would say.

    def __init__(
        self, app: ASGIApp, refuse: Refuse, most: int = MOST_BYTES, seconds: float = MOST_SECONDS
    ) -> None:
        """most: bytes."""
        self._app, self._refuse, self._most, self._seconds = app, refuse, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length, coding = headers.get("content-length", ""), headers.get("content-encoding", "")
        some = length not in ("", "0") or "transfer-encoding" in headers
        if some and coding.lower() not in ("", "identity"):
            await self._encoded(quoted(coding))(scope, receive, send)
            return
        too_long = length.isdecimal() and int(length) > self._most
        body, more, end = bytearray(), True, time.monotonic() + self._seconds
        while more and not too_long:
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except TimeoutError:
                words = f"The request's body didn't arrive within {self._seconds:g} seconds."
                await self._refuse(408, words, {"Connection": "close"})(scope, receive, send)
                return
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more, too_long = message.get("more_body", False), len(body) > self._most
        if too_long:
            words = f"The request's body is longer than {self._most:,} bytes, the most that is read."
            await self._refuse(413, words, {})(scope, receive, send)
            return
        if body.startswith(GZIP):
            await self._encoded("gzip, though no header says so")(scope, receive, send)
            return
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, again, send)

    def _encoded(self, coding: str) -> Response:
        words = (
            f"The request's body is encoded as {coding}, and compressed ones aren't read here: send it as it "
            "is, without Content-Encoding."
        )
        return self._refuse(415, words, {"Accept-Encoding": "identity"})


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def under(path: str, start: str) -> bool:
    """Whether this path is `start`, or below it."""
    return path == start or path.startswith(f"{start}/")
