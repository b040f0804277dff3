"""The guard in front of every route, one ASGI middleware behind the other: whose page asks and under which
name (Guard), who asks (AskForKey here, AskForLogin in login.py), and what the table of routes allows
(KeepToTable, BoundBody). What each route allows is access.py's to say, and how a refusal looks its API's.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import ACCESS, UNLISTED, Access, Table
from api.refused_page import refused_page
from api.sites import SITE, Sites, host_of, navigates, setting_for, site_of
from pipeline.errors import quoted

REFUSE = "stepwise.refuse"
"""Of an ASGI scope: how the API that is asked refuses (a Refuse; Guard puts it there)."""
Refuse = Callable[[int, str, Mapping[str, str]], Response]
"""Renders a refusal: its status, its words and its headers."""

GZIP = b"\x1f\x8b"
"""How a file of gzip begins, and no JSON."""
MOST_SECONDS = 60.0
"""For one body to arrive in: 17 KB a second, for the longest."""


PROXY = (
    " If that is this server's own address, the proxy in front of it doesn't hand on the Host header: see "
    "docs/proxy.md."
)
NOT_LET_IN = (
    "Pages of other sites may not call this server; this request is from {}. Clients that are no web pages "
    "may, and pages on this machine (http://localhost). Its owner can let a site in by STEPWISE_ORIGINS."
    f"{PROXY}"
)
NOT_OWN = f"Only the server's own page may ask for this; this request is from {{}}.{PROXY}"
NOT_HERE = "Stepwise has no use for this route of Gradio's, and doesn't answer it."


class Guard:
    """The first to look at a request. Finds its route in the table, refuses names that aren't the server's
    and pages that may not call it, and says to browsers who may frame an answer and that its kind is what it
    says. What it finds out is in the scope for those behind it: ACCESS, SITE, REFUSE."""

    def __init__(
        self,
        app: ASGIApp,
        table: Table,
        sites: Sites,
        refusals: Mapping[str, Refuse],
        other: Refuse,
        asks: Callable[[Access], bool],
    ) -> None:
        """
        Args:
            refusals: how APIs refuse, by what their paths begin with. other: how Gradio's does.
            asks: whether who calls this route must show who they are: then it is open to pages of every
                site, for they need a secret that no browser sends by itself.
        """
        self._app, self._table, self._sites, self._asks = app, table, sites, asks
        self._refusals, self._other = refusals, other
        self._headers = {"X-Content-Type-Options": "nosniff"}
        if sites.policy:
            self._headers["Content-Security-Policy"] = sites.policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method, headers = get_route_path(scope), scope["method"], Headers(scope=scope)
        refuse = next((how for start, how in self._refusals.items() if under(path, start)), self._other)
        access, host = self._table.find(path, method), host_of(headers)
        site = site_of(headers, method, host)
        found = {**scope, ACCESS: access, SITE: site, REFUSE: refuse}
        app: ASGIApp = self._app
        words, status, setting = "", 0, ""
        # Both: a page may write X-Forwarded-Host, but no Host.
        unknown = [name for name in (headers.get("host", ""), host) if not self._sites.answers_to(name)]
        if access.pages != "any" and unknown:
            status, setting = 421, setting_for(unknown[0])
            words = (
                f"This server isn't known by the name {quoted(unknown[0])}. Its owner can add the name to "
                "STEPWISE_HOSTS."
            )
        elif not self._may(access, site, headers.get("origin")):
            status, words = 403, (NOT_OWN if access.pages == "own" else NOT_LET_IN).format(_named(headers))
        if status:
            shown = navigates(headers)
            app = refused_page(status, words, setting) if shown else refuse(status, words, {})
        await app(found, receive, self._marked(send))

    def _may(self, access: Access, site: str, origin: str | None) -> bool:
        if access.pages == "any" or site in ("own", "unknown"):
            return True
        if access.pages == "own":
            return False
        return site == "link" or self._asks(access) or self._sites.let_in(origin)

    def _marked(self, send: Send) -> Send:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        return marked


class KeepToTable:
    """The app without the routes that the table doesn't have, or has closed, and without methods that it
    doesn't have of them. Behind who asks for a login: strangers aren't told what there is."""

    def __init__(self, app: ASGIApp, table: Table) -> None:
        self._app, self._table = BoundBody(app), table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._app
        if scope["type"] == "http":
            access, path, method = scope[ACCESS], get_route_path(scope), scope["method"]
            asked = quoted(f"{method} {path}", 120)[1:-1]
            if access is UNLISTED:
                app = scope[REFUSE](404, f"There is no {asked} here.", {})
            elif access.who == "nobody":
                app = scope[REFUSE](404, NOT_HERE, {})
            elif not access.allows(method):
                allowed = ", ".join(self._table.methods(path))
                words = f"There is no {asked} here; this address answers {allowed}."
                app = scope[REFUSE](405, words, {"Allow": allowed})
        await app(scope, receive, send)


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
    """Lets those through to programs' routes that send `Authorization: Bearer` and one of the keys; everyone
    where there are no keys."""

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        self._app = app
        # Digests: equally long, so that the time of a comparison doesn't tell a key's length.
        self._keys = [digest(key.get_secret_value().encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = self._keys and scope["type"] == "http" and scope[ACCESS].who == "program"
        if not asks or self.known(scope):
            await self._app(scope, receive, send)
            return
        words = (
            "This server asks for a key: send one of its keys as “Authorization: Bearer …”."
            if "authorization" not in Headers(scope=scope)
            else "This is none of the server's keys; it expects one as “Authorization: Bearer …”."
        )
        await scope[REFUSE](401, words, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def known(self, scope: Scope) -> bool:
        """Whether the request has one of the keys."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        given_digest = digest(key.strip())
        # A list, not a generator: every key is compared, whichever of them it is.
        same = any([hmac.compare_digest(given_digest, known) for known in self._keys])  # noqa: C419
        return same and scheme.lower() == b"bearer"


class BoundBody:
    """Reads the body before the app does, and refuses one past its route's bound with 413, whether or not it
    said its length, one that doesn't arrive with 408, and a compressed one, which no app here reads, with
    415. The app gets it whole; its answer is not touched."""

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
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, again, send)

    @staticmethod
    def _encoded(refuse: Refuse, coding: str) -> Response:
        words = (
            f"The request's body is encoded as {coding}, and compressed ones aren't read here: send it as it "
            "is, without Content-Encoding."
        )
        return refuse(415, words, {"Accept-Encoding": "identity"})


def _named(headers: Headers) -> str:
    """Whose page a request says that it is from."""
    return quoted(headers.get("origin") or headers.get("referer") or "another site")


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def under(path: str, start: str) -> bool:
    """Whether this path is `start`, or below it."""
    return path == start or path.startswith(f"{start}/")
