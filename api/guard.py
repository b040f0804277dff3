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
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import ACCESS, UNLISTED, Access, Often, Table
from api.refused_page import refused_page
from api.sites import SITE, Sites, host_of, is_host, navigates, setting_for, site_of
from api.visitor import address_of, owner_of
from jobs.rate import RateLimit
from pipeline.errors import RateLimited, quoted

REFUSE = "stepwise.refuse"
"""Of an ASGI scope: how the API that is asked refuses (a Refuse; Guard puts it there)."""
KEY = "stepwise.key"
"""Of an ASGI scope: which of the keys was sent, by the first 16 hex digits of its digest; not there where
none was."""
Refuse = Callable[[int, str, Mapping[str, str]], Response]
"""Renders a refusal: its status, its words and its headers."""

GUESSES = "5/minute, 50/hour"
"""Wrong passwords, tokens or keys from one address, after which it is told to wait."""
LONG_KEY = 16
"""Characters from which on nobody finds a key by guessing: of random letters and digits, at a million a
second, 10¹⁵ years."""

LONGEST = 8192
"""Characters of a path and its query, as nginx reads; httpx (0.28) makes no address of more than 65,536."""
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

        def refused(status: int, words: str, setting: str) -> Response:
            shown = navigates(headers)
            return refused_page(status, words, setting) if shown else refuse(status, words, {})

        app: ASGIApp = self._app
        length = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        # Both: a page may write X-Forwarded-Host, but no Host.
        unknown = [name for name in (headers.get("host", ""), host) if not self._sites.answers_to(name)]
        if length > LONGEST:
            words = f"The address has {length:,} characters; {LONGEST:,} are the most that are read."
            app = refuse(414, words, {})
        elif host and not is_host(host):
            app = refuse(
                400, f"{quoted(host)} is no host: the client, or the proxy in front, must name one.", {}
            )
        elif access.pages != "any" and unknown:
            words = (
                f"This server isn't known by the name {quoted(unknown[0])}. Its owner can add the name to "
                "STEPWISE_HOSTS."
            )
            app = refused(421, words, setting_for(unknown[0]))
        elif not self._may(access, site, headers.get("origin")):
            words = NOT_OWN if access.pages == "own" else NOT_LET_IN
            app = refused(403, words.format(_named(headers)), "")
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
    doesn't have of them; no more often than it says. Behind who asks for a login: strangers aren't told what
    there is."""

    def __init__(self, app: ASGIApp, table: Table, counted: Mapping[Often, RateLimit] | None = None) -> None:
        """counted: how often each person may do what the table says is counted."""
        self._app, self._table, self._counted = BoundBody(app), table, counted or {}

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
            elif (limit := self._counted.get(access.often)) is not None:
                try:
                    limit.check(owner_of(Request(scope)).person)
                except RateLimited as error:
                    app = scope[REFUSE](429, str(error), waiting(error))
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
    where there are no keys.

    An address that sent too many wrong keys (GUESSES) is told to wait, as one with wrong passwords. A right
    key never counts, and a long one is let in meanwhile, too: nobody finds it by guessing, while those behind
    one NAT, or behind a proxy that isn't named, all have one address, and a stranger's wrong keys would shut
    them out. A shorter one can be guessed, as a password can: while its address must wait, right or wrong
    isn't looked at.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        self._app = app
        # Digests: equally long, so that the time of a comparison doesn't tell a key's length.
        self._keys = [digest(key.get_secret_value().encode()) for key in keys]
        self._is_long = [len(key.get_secret_value()) >= LONG_KEY for key in keys]
        self._guesses = RateLimit(GUESSES, doing="wrong keys")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = self._keys and scope["type"] == "http" and scope[ACCESS].who == "program"
        if not asks or self.known(scope):
            await self._app(scope, receive, send)
            return
        try:
            self.count(scope)
        except RateLimited as error:
            await scope[REFUSE](429, str(error), waiting(error))(scope, receive, send)
            return
        words = (
            "This server asks for a key: send one of its keys as “Authorization: Bearer …”."
            if "authorization" not in Headers(scope=scope)
            else "This is none of the server's keys; it expects one as “Authorization: Bearer …”."
        )
        await scope[REFUSE](401, words, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def known(self, scope: Scope) -> bool:
        """Whether the request has one of the keys, and its address needn't wait where that is a short one."""
        given = digest(_bearer(scope))
        try:
            self._guesses.allow(address_of(scope))
        except RateLimited:
            waits = True
        else:
            waits = False
        # Every key is compared, whichever of them it is.
        same = [hmac.compare_digest(given, known) for known in self._keys]
        is_known = any([one and (long or not waits) for one, long in zip(same, self._is_long, strict=True)])  # noqa: C419
        if is_known:
            scope[KEY] = given.hex()[:16]
        return is_known

    def count(self, scope: Scope) -> None:
        """Counts the key of a request that isn't known, if it has any, as a wrong one. There is no await
        between the two, so of guesses that come at once each counts.

        Raises:
            RateLimited: too many wrong ones came from this address; this one isn't counted.
        """
        if self._keys and _bearer(scope):
            self._guesses.check(address_of(scope))


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


def _bearer(scope: Scope) -> bytes:
    """What the request has as its key; empty: nothing, or two headers, of which none is read."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    return key.strip() if scheme.lower() == b"bearer" else b""


def waiting(error: RateLimited) -> dict[str, str]:
    """The header that says when to come back to who has guessed too often."""
    return {"Retry-After": f"{round(error.retry_after or 60) + 1}"}


def digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def under(path: str, start: str) -> bool:
    """Whether this path is `start`, or below it."""
    return path == start or path.startswith(f"{start}/")
