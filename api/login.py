"""The login that an owner may ask for (STEPWISE_LOGIN): a guard before every route, for Gradio's own (6.31)
leaves some open and sets no limit to guesses. How one logs in stands in passwords.py and hub_login.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from gradio.route_utils import API_PREFIX
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard import LET_IN, AskForKey, Refuse, under
from api.visitor import USER, address_of
from pipeline.errors import RateLimited

if TYPE_CHECKING:
    from api.browser_login import BrowserLogins

ALWAYS_OPEN = frozenset(
    {"/livez", "/readyz", "/favicon.ico", "/manifest.json", "/robots.txt", f"{API_PREFIX}/startup-events"}
)
"""Health, and what browsers fetch without their cookies; at /startup-events Gradio looks whether it has
started, and learns no more."""
FILES = f"{API_PREFIX}/file="
"""Where the pictures are that /v1 and /mcp give the addresses of: a key that opens these opens it."""
GUESSES = "5/minute, 50/hour"
"""Wrong passwords or tokens from one address, after which it is told to wait."""

ASKING: ContextVar[str] = ContextVar("the address that this request came from", default="unknown")


class TurnedAway(Exception):
    """Who asks is not let in: a status, why in words, and the headers of the answer."""

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.headers = status, words, dict(headers or {})


def too_many(error: RateLimited) -> TurnedAway:
    """The refusal of who has guessed too often."""
    return TurnedAway(429, str(error), {"Retry-After": f"{round(error.retry_after or 60) + 1}"})


class Login(Protocol):
    """A way to log in.

    open: paths that answer without a login. open_below: what others begin with. challenge: for a program's
    WWW-Authenticate. words: how to come in, for who is refused. who: may log in, for the line at the start.
    shapes: how those of its paths refuse that people come to, by what they begin with. browsers: the logins
    of people.
    """

    open: frozenset[str]
    open_below: tuple[str, ...]
    challenge: str
    words: str
    who: str

    @property
    def shapes(self) -> Mapping[str, Refuse]: ...

    @property
    def browsers(self) -> BrowserLogins: ...

    async def sent(self, headers: Headers, address: str) -> str | None:
        """The user whose secret the request carries in a header; None: it carries none.

        Raises:
            TurnedAway: it carries a wrong one, or too many wrong ones came from this address.
        """

    def remembered(self, request: Request) -> str | None:
        """The user who logged in with this browser; None: nobody did."""

    def page(self, request: Request) -> Response | None:
        """The page at `/` for who isn't logged in; None: this is no request for one."""

    def routes(self) -> list[BaseRoute]:
        """The routes to log in and out."""


class AskForLogin:
    """Lets those through that are logged in: by a cookie; by what a program sends in a header; and, on the
    programs' routes, by a key. They get Gradio's cookie for this one request, so that it knows them too."""

    def __init__(
        self,
        app: ASGIApp,
        login: Login,
        keys: Sequence[SecretStr],
        shapes: Mapping[str, Refuse],
        other: Refuse,
    ) -> None:
        """
        Args:
            keys: that open the programs' routes.
            shapes: these routes, each what its paths begin with, and how they refuse. other: how Gradio's do.
        """
        self._app, self._login, self._shapes, self._other = app, login, shapes, other
        self._keys = AskForKey(app, other, keys)
        self._has_keys = bool(keys)
        self._tokens: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = get_route_path(scope)
        refuse = next((how for start, how in self._shapes.items() if under(path, start)), None)
        ASKING.set(address_of(scope))
        if path in self._login.open or path.startswith(self._login.open_below):
            await self._app(scope, receive, send)
            return
        try:
            known = await self._known(scope, programs=refuse is not None, files=path.startswith(FILES))
        except TurnedAway as away:
            # Not to people: a browser's own window for names and passwords would open over the page.
            challenge = {"WWW-Authenticate": self._login.challenge} if away.status == 401 and refuse else {}
            words = away.words + (self._of_keys() if away.status == 401 else "")
            answer = (refuse or self._other)(away.status, words, {**challenge, **away.headers})
            page = self._login.page(Request(scope)) if path == "/" and away.status == 401 else None
            await (page or answer)(scope, receive, send)
            return
        await self._app(known, receive, send)

    async def _known(self, scope: Scope, programs: bool, files: bool) -> Scope:
        """The scope as the app shall see it.

        Raises:
            TurnedAway: it is nobody's that we know.
        """
        headers = Headers(scope=scope)
        if (programs or files) and self._has_keys and self._keys.known(scope):
            return self._as(scope, "")
        name = await self._login.sent(headers, ASKING.get())
        if name is None and not programs and not from_another_site(headers, scope["method"]):
            name = self._login.remembered(Request(scope))
        if name is None:
            raise TurnedAway(401, self._login.words)
        return self._as(scope, name)

    def _as(self, scope: Scope, name: str) -> Scope:
        """This user's request; the empty name is a key's, which Gradio takes for a user without a name."""
        app: Any = scope["app"]
        token = self._tokens.setdefault(name, secrets.token_urlsafe(32))
        app.tokens[token] = name
        cookie = (b"cookie", f"access-token-{app.cookie_id}={token}".encode())
        headers = [header for header in scope["headers"] if header[0] != b"cookie"] + [cookie]
        return {**scope, "headers": headers, LET_IN: True, **({USER: name} if name else {})}

    def _of_keys(self) -> str:
        return (
            " On /v1 and /mcp, one of its keys as “Authorization: Bearer …” is enough."
            if self._has_keys
            else ""
        )


def from_another_site(headers: Headers, method: str) -> bool:
    """Whether a browser says that another site's page asks, other than by following a link. A cookie goes
    with such a request (a Space's page stands in a frame of another site), and Gradio's CORS allows any."""
    followed = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and not followed
