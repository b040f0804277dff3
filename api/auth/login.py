"""The login that an owner may ask for (STEPWISE_LOGIN): a guard before every route, because Gradio's own
(6.31) leaves some open and sets no limit to guesses. How one logs in stands in passwords.py and hub_login.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.keys import AskForKey, waiting
from api.guard.access import ACCESS, REFUSE, Access, Refuse
from api.guard.sites import SITE, is_browser
from api.visitor import USER, address_of
from pipeline.errors import RateLimited

if TYPE_CHECKING:
    from api.auth.browser_login import BrowserLogins


class LoginRefused(Exception):
    """Whoever asks is not let in. status: HTTP's; words say why; headers are the answer's."""

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.headers = status, words, dict(headers or {})


def too_many_guesses(error: RateLimited) -> LoginRefused:
    """Return the refusal of whoever has guessed too often."""
    return LoginRefused(429, str(error), waiting(error))


class Login(Protocol):
    """A way to log in.

    access: its own routes, in the table (guard/access.py). challenge: for a program's WWW-Authenticate.
    words: how to come in, for who is refused. who: may log in, for the line at the start. shapes: how those
    of its paths refuse that people come to, by what they begin with. browsers: the logins of people.
    """

    access: tuple[Access, ...]
    challenge: str
    words: str
    who: str

    @property
    def shapes(self) -> Mapping[str, Refuse]: ...

    @property
    def browsers(self) -> BrowserLogins: ...

    async def sent(self, headers: Headers, address: str) -> str | None:
        """Return the user whose secret the request carries in a header, or None if it carries none.

        Raises:
            LoginRefused: it carries a wrong one, or too many wrong ones came from this address.
        """

    def remembered(self, request: Request) -> str | None:
        """Return the user who logged in with this browser, or None."""

    def page(self, request: Request) -> Response | None:
        """Return the page at `/` for whoever isn't logged in, or None if this isn't a request for one."""

    def routes(self) -> list[BaseRoute]:
        """Return the routes to log in and out."""


class AskForLogin:
    """Middleware that lets through whoever is logged in: by a cookie; by what a program sends in a header;
    and, on the programs' routes, by a key. Who they are is in the scope from then on (USER), and no cookie
    any more."""

    def __init__(self, app: ASGIApp, login: Login, keys: Sequence[SecretStr]) -> None:
        """keys: that open the programs' routes, and the pictures."""
        self._app, self._login = app, login
        self._keys = AskForKey(app, keys)
        self._has_keys = bool(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        access: Access = scope[ACCESS]
        if access.who == "everyone":
            await self._app(scope, receive, send)
            return
        try:
            known = await self._known(scope, access)
        except LoginRefused as away:
            headers = dict(away.headers)
            # To programs alone: a browser's own window for names and passwords would open, and the browser
            # would send what is typed there with every request, also for other sites' pages.
            if away.status == 401 and access.who == "program" and not is_browser(Headers(scope=scope)):
                headers = {"WWW-Authenticate": self._login.challenge} | headers
            words = away.words + (self._key_words() if away.status == 401 else "")
            answer = scope[REFUSE](away.status, words, headers)
            at_page = get_route_path(scope) == "/" and away.status == 401
            page = self._login.page(Request(scope)) if at_page else None
            await (page or answer)(scope, receive, send)
            return
        await self._app(known, receive, send)

    async def _known(self, scope: Scope, access: Access) -> Scope:
        """Return the scope as the app shall see it.

        Raises:
            LoginRefused: it is nobody's that we know.
        """
        headers = Headers(scope=scope)
        if access.who in ("program", "file") and self._has_keys and self._keys.known(scope):
            return self._with_user(scope, "")
        # A browser sends cookies, and the password that was typed into its own window, for every page.
        lent = scope[SITE] == "other"
        name = None
        if not (lent and _is_basic(headers)):
            name = await self._login.sent(headers, address_of(scope))
        if name is None and access.who != "program" and not lent:
            name = self._login.remembered(Request(scope))
        if name is None:
            try:
                if access.who in ("program", "file"):
                    self._keys.count(scope)
            except RateLimited as error:
                raise too_many_guesses(error) from None
            raise LoginRefused(401, self._login.words)
        return self._with_user(scope, name)

    def _with_user(self, scope: Scope, name: str) -> Scope:
        """Return the scope as this user's request; the empty name is a key's."""
        headers = [header for header in scope["headers"] if header[0] != b"cookie"]
        return {**scope, "headers": headers, **({USER: name} if name else {})}

    def _key_words(self) -> str:
        return (
            " On /v1 and /mcp, one of its keys as “Authorization: Bearer …” is enough."
            if self._has_keys
            else ""
        )


def _is_basic(headers: Headers) -> bool:
    return any(value.lower().startswith("basic") for value in headers.getlist("authorization"))
