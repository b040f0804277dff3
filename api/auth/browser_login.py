"""Logins that browsers keep, whichever way one logs in: whose they are, how long they hold, what ends with
them, the cookie that a browser has of one, and logging out. How one logs in stands in passwords.py and
hub_login.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.keys import digest
from api.server.behind_proxy import app_address, path_of

LOGOUT = "/logout"
COOKIE = "stepwise-login"
MOST_LOGINS = 10_000
"""That are kept of everyone; of more, the oldest ends of who has most."""
MOST_EACH = 100
"""That are kept of one user; of more, their own oldest ends."""
GONE: Message = {"type": "http.disconnect"}

LogoutPage = Callable[[], str]
"""Renders the page that asks whether to log out."""


@dataclass(eq=False)
class LoginSession:
    """One login: the user's name, and until when it holds, in seconds of time.monotonic()."""

    name: str
    until: float
    _waits: set[asyncio.Timeout] = field(default_factory=set)

    @property
    def over(self) -> bool:
        return self.until <= time.monotonic()

    @contextlib.asynccontextmanager
    async def lasting(self) -> AsyncIterator[None]:
        """Cancel what is done within this context once the login is over.

        Raises:
            TimeoutError: it is.
        """
        async with asyncio.timeout(self.until - time.monotonic()) as timeout:
            self._waits.add(timeout)
            try:
                yield
            finally:
                self._waits.discard(timeout)

    def end(self) -> None:
        self.until = 0.0
        for timeout in self._waits:
            if not timeout.expired():
                timeout.reschedule(0)


class Logins:
    """All logins that hold. Each has a token that can't be guessed, which its browser alone keeps. For use on
    one event loop."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, LoginSession] = {}
        self._each: defaultdict[str, OrderedDict[bytes, None]] = defaultdict(OrderedDict)

    def begin(self, name: str, seconds: float) -> str:
        """Begin a login and return its token, for the browser to keep."""
        token = secrets.token_urlsafe(32)
        key = _key(token)
        self._sessions[key] = LoginSession(name, time.monotonic() + seconds)
        self._each[name][key] = None
        if len(self._each[name]) > MOST_EACH:
            self._end(next(iter(self._each[name])))
        elif len(self._sessions) > MOST_LOGINS:
            for past in [key for key, session in self._sessions.items() if session.over]:
                self._end(past)
            if len(self._sessions) > MOST_LOGINS:
                most = max(self._each, key=lambda name: len(self._each[name]))
                self._end(next(iter(self._each[most])))
        return token

    def session(self, token: str) -> LoginSession | None:
        """Return the login with this token, or None if there is none or it is over."""
        session = self._sessions.get(key := _key(token))
        if session is not None and session.over:
            self._end(key)
            return None
        return session

    def name(self, token: str) -> str | None:
        """Return whose login this token is, or None if it is nobody's, or no longer."""
        session = self.session(token)
        return None if session is None else session.name

    def end(self, token: str) -> None:
        self._end(_key(token))

    def _end(self, key: bytes) -> None:
        session = self._sessions.pop(key, None)
        if session is None:
            return
        session.end()
        del self._each[session.name][key]
        if not self._each[session.name]:
            del self._each[session.name]


def _key(token: str) -> bytes:
    return digest(token.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Site:
    """Where browsers find this server. root_path: where a proxy says that the app is (GRADIO_ROOT_PATH).
    host: a Space's own, which browsers reach by https; empty: this is none."""

    root_path: str = ""
    host: str = ""

    @property
    def path(self) -> str:
        """Return the path that cookies are for: another app may stand on the same host."""
        return path_of(self.root_path) or "/"

    def address(self, request: Request) -> str:
        """Return the app's address, without a slash at its end, as its browser writes it."""
        if self.host:
            return f"https://{self.host}"
        return app_address(request, self.root_path)

    def secure(self, request: Request) -> bool:
        """Whether the browser came by https. Nothing else decides what its cookies are told."""
        return self.address(request).startswith("https:")

    def cookie(self, name: str, request: Request) -> str:
        """Return the name under which a browser keeps this cookie. By https it lets no other host and no page
        that came by http set one that is called so (RFC 6265bis, 4.1.3.2). Cookies don't know ports: two
        servers on one host tell theirs apart by the name."""
        port = urlsplit(self.address(request)).port
        prefix = "__Host-" if self.path == "/" else "__Secure-"
        return f"{prefix if self.secure(request) else ''}{name}{f'-{port}' if port else ''}"


class BrowserLogins:
    """Logins by a cookie, and the routes to end them."""

    def __init__(self, site: Site, page: LogoutPage) -> None:
        self.site, self._page, self._logins = site, page, Logins()

    def session(self, request: Request) -> LoginSession | None:
        """Return the login of the browser that asks, or None."""
        return self._logins.session(self._token(request))

    def name(self, request: Request) -> str | None:
        session = self.session(request)
        return None if session is None else session.name

    def begin(self, request: Request, answer: Response, name: str, seconds: float, lasts: bool) -> None:
        """Log this browser in; the login that it had before ends.

        Args:
            lasts: whether the browser keeps it when it is closed.
        """
        self._logins.end(self._token(request))
        secure = self.site.secure(request)
        answer.set_cookie(
            self.site.cookie(COOKIE, request),
            self._logins.begin(name, seconds),
            max_age=round(seconds) if lasts else None,
            path=self.site.path,
            secure=secure,
            httponly=True,
            samesite="none" if secure else "lax",  # a Space's page stands in a frame of another site
        )

    def routes(self) -> list[BaseRoute]:
        return [
            Route(LOGOUT, self._log_out, methods=["POST"]),
            Route(LOGOUT, self._ask, methods=["GET"]),
        ]

    async def _ask(self, request: Request) -> Response:
        """Show the page that asks whether to log out. It ends nothing: any site's page can have a browser
        fetch an address."""
        return page_of(self._page())

    async def _log_out(self, request: Request) -> Response:
        """End the login of this browser, in all its tabs; the user's logins in other browsers hold."""
        answer = RedirectResponse("./", 303, {"Cache-Control": "no-store"})
        self._logins.end(self._token(request))
        secure = self.site.secure(request)
        answer.delete_cookie(
            self.site.cookie(COOKIE, request),
            path=self.site.path,
            secure=secure,
            httponly=True,
            samesite="none" if secure else "lax",
        )
        return answer

    def _token(self, request: Request) -> str:
        return request.cookies.get(self.site.cookie(COOKIE, request), "")


def space_host() -> str:
    """Return the host of the Space that this is, or an empty text."""
    # A list where the Space has a domain of its own; the Hub sends people back to the first.
    return os.environ.get("SPACE_HOST", "").split(",")[0].strip()


def page_of(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    """Return a page of the login's, which no cache keeps."""
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return HTMLResponse(text, status, kept)


class EndStreamsWithLogin:
    """Middleware that ends the answers to a browser with its login, as if the browser had gone: streams that
    are open then give nothing more. It stands in front of AskForLogin, which takes the cookie away."""

    def __init__(self, app: ASGIApp, logins: BrowserLogins) -> None:
        self._app, self._logins = app, logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._logins.session(Request(scope)) if scope["type"] == "http" else None
        if session is None:
            await self._app(scope, receive, send)
            return
        begun = False

        async def until_the_end() -> Message:
            if session.over:
                return GONE
            try:
                async with session.lasting():
                    # Awaited here, not in a task: Gradio looks without waiting whether a browser has gone.
                    return await receive()
            except TimeoutError:
                return GONE

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        await self._app(scope, until_the_end, noted)
        if begun and session.over:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
