"""The guard in front of every route: whose page asks and under which name (Guard), and what the table of
routes allows (AllowListed). Between the two stands who asks: AskForKey (auth/keys.py) or AskForLogin
(auth/login.py). What each route allows stands in access.py; how a refusal looks is each API's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.keys import waiting
from api.guard.access import ACCESS, REFUSE, UNLISTED, Access, Often, Refuse, Table, under
from api.guard.bodies import BoundBody
from api.guard.refused_page import refused_page
from api.guard.sites import SITE, Sites, host_of, is_host, navigates, setting_for, site_of
from api.visitor import owner_of
from jobs.scheduling.rate_limit import RateLimit
from pipeline.errors import RateLimited, quoted

LONGEST = 8192
"""Characters of a path and its query, as nginx reads; httpx (0.28) makes no address of more than 65,536."""
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
    """The first to look at a request. It finds the route in the table, refuses names that aren't the server's
    and pages that may not call it, and tells browsers who may frame an answer and to believe its type. What
    it finds out is in the scope for those behind it: ACCESS, SITE, REFUSE."""

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
        """Whether a page of this site may call this route."""
        if access.pages == "any" or site in ("own", "unknown"):
            return True
        if access.pages == "own":
            return False
        return site == "link" or self._asks(access) or self._sites.let_in(origin)

    def _marked(self, send: Send) -> Send:
        """Return a `send` that adds the guard's own headers."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        return marked


class AllowListed:
    """Middleware that refuses routes which the table doesn't have or has closed, methods that it doesn't have
    of them, and whoever calls more often than it says. It stands behind who asks for a login: strangers
    aren't told what there is."""

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
                    limit.hit(owner_of(Request(scope)).person)
                except RateLimited as error:
                    app = scope[REFUSE](429, str(error), waiting(error))
        await app(scope, receive, send)


def _named(headers: Headers) -> str:
    """Return whose page a request says that it is from."""
    return quoted(headers.get("origin") or headers.get("referer") or "another site")
