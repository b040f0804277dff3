"""Login with Hugging Face (STEPWISE_LOGIN=huggingface): people by OpenID Connect (OAuth) at the Hub, programs
with a Hub token (hub_tokens.py). What asks for it stands in login.py.

Gradio's own routes for this (6.31) aren't used: off a Space they let everyone in as the server's own account,
they keep the access token in the visitor's cookie, and they redirect to where the request says.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth.browser_login import COOKIE, LOGOUT, BrowserLogins, LogoutPage, Site, page_of, space_host
from api.auth.hub_tokens import TOKENS, Guesses, HubTokens, Members, Person
from api.auth.login import LoginRefused
from api.auth.openid import InvalidLogin, OpenId, ProviderFailed
from api.guard.access import HUGGING_FACE, Access, Refuse
from api.visitor import address_of
from pipeline.errors import SettingError, quoted

BEGIN, CALLBACK = "/login/huggingface", "/login/callback"
MINUTES = 10
"""Within which one must come back from the provider."""
PATIENCE = 10.0
"""Seconds in which the provider must have answered all that one step of a login asks it."""

AGAIN = (
    "That login was begun in another browser, more than ten minutes ago, or again since in another tab. "
    "Log in once more."
)
DENIED = "Hugging Face didn't log you in: it was refused there, or the answer is none of its own."
UNREACHABLE = (
    "Hugging Face can't be reached from this server right now, or its answer can't be read: try again a "
    "little later."
)

LoginPage = Callable[[str, str], str]
"""Renders the login page: where its button leads, and what went wrong, or nothing."""


@dataclass(frozen=True)
class Provider:
    """Where one logs in, and as which OAuth app. host: the Space's own, to which the Hub sends people back;
    empty: this is no Space."""

    client_id: str
    client_secret: str = field(repr=False)
    url: str = "https://huggingface.co"
    host: str = ""

    @classmethod
    def from_environment(cls) -> Provider:
        """Return the provider that a Space with `hf_oauth: true` has in its environment.

        Raises:
            SettingError: it isn't there.
        """
        missing = [name for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET") if not os.environ.get(name)]
        if missing:
            what = (
                "Write “hf_oauth: true” into the metadata at the top of the Space's README.md: then the "
                "platform sets it."
                if os.environ.get("SPACE_ID")
                else "On a Space, “hf_oauth: true” in the metadata at the top of README.md sets it; here, "
                "make an OAuth app at https://huggingface.co/settings/applications/new whose redirect URL is "
                f"this server's address with {CALLBACK}, and set both to its own."
            )
            raise SettingError(f"STEPWISE_LOGIN=huggingface needs {' and '.join(missing)}. {what}")
        url = os.environ.get("OPENID_PROVIDER_URL") or cls.url
        if not _is_address(url):
            raise SettingError(
                f"OPENID_PROVIDER_URL must be an address such as {cls.url}; got {quoted(url)}."
            )
        return cls(
            os.environ["OAUTH_CLIENT_ID"],
            os.environ["OAUTH_CLIENT_SECRET"],
            url.rstrip("/"),
            space_host(),
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


class HubLogin:
    """Implements `login.Login`. For use on one event loop."""

    access: tuple[Access, ...] = HUGGING_FACE
    challenge = 'Bearer realm="Stepwise"'
    words = (
        "This server asks for a login with Hugging Face: log in on its page, or send a Hub token "
        f"({TOKENS}) as “Authorization: Bearer hf_…” (gradio_client: token=…)."
    )

    def __init__(
        self,
        provider: Provider,
        users: Collection[str],
        page: LoginPage,
        logout: LogoutPage,
        root_path: str = "",
    ) -> None:
        """
        Args:
            users: names of users and organisations that may come in; none: everyone with an account.
            root_path: where a proxy says that the app is.
        """
        self._provider, self._members, self._page = provider, Members(users), page
        self.browsers = BrowserLogins(Site(root_path, provider.host), logout)
        self._tokens, self._guesses = HubTokens(), Guesses("failed logins")
        self._openid = OpenId(provider.client_id, provider.client_secret, provider.url, PATIENCE)
        self.shapes: Mapping[str, Refuse] = dict.fromkeys((BEGIN, CALLBACK, LOGOUT), self._refuse)
        whom = f"those in STEPWISE_USERS ({len(users)})" if users else "everyone with an account may"
        self.who = f"with Hugging Face ({whom}): people on the page, programs with a Hub token"

    async def sent(self, headers: Headers, address: str) -> str | None:
        """Implements `login.Login`, by a token. gradio_client (2.7) sends its own in X-HF-Authorization, for
        the Hub's proxy and us."""
        for name in ("authorization", "x-hf-authorization"):
            values = headers.getlist(name)
            scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
            if scheme.lower() == "bearer" and token.strip().startswith("hf_"):
                return self._members.admit(await self._tokens.person(token.strip(), address))
        return None

    def remembered(self, request: Request) -> str | None:
        return self.browsers.name(request)

    def page(self, request: Request) -> Response | None:
        return self._answer() if request.method in ("GET", "HEAD") else None

    def routes(self) -> list[BaseRoute]:
        state = Middleware(StateCookie, site=self.browsers.site, secret=secrets.token_urlsafe(32))
        return [
            Route(BEGIN, self._begin, middleware=[state]),
            Route(CALLBACK, self._callback, middleware=[state]),
            *self.browsers.routes(),
        ]

    async def _begin(self, request: Request) -> Response:
        try:
            answer: Response = await self._openid.redirect(
                request, self.browsers.site.address(request) + CALLBACK
            )
        except ProviderFailed as error:
            _log(error)
            return self._answer(UNREACHABLE, 502)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    async def _callback(self, request: Request) -> Response:
        try:
            async with self._guesses.attempt(address_of(request.scope)):
                person, seconds = await self._person(request)
            name = self._members.admit(person)
        except LoginRefused as away:
            return self._answer(away.words, away.status, away.headers)
        answer = RedirectResponse("../", 303, {"Cache-Control": "no-store"})
        self.browsers.begin(request, answer, name, seconds, lasts=True)
        return answer

    async def _person(self, request: Request) -> tuple[Person, float]:
        """Call `OpenId.person` for a browser that began the login.

        Raises:
            LoginRefused: nobody comes back. With 401 it may have been a guess.
        """
        # First: a stranger's link must not count as a guess of who opens it.
        if not await self._openid.has_begun(request):
            raise LoginRefused(400, AGAIN)
        try:
            return await self._openid.person(request)
        except ProviderFailed as error:
            _log(error)
            raise LoginRefused(502, UNREACHABLE) from None
        except InvalidLogin as error:
            _log(error)
            raise LoginRefused(401, DENIED) from None

    def _answer(
        self, words: str = "", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> HTMLResponse:
        # Whole where the Hub sends people back to one of several hosts: the way there must begin at that one.
        host = self._provider.host
        link = f"https://{host}{BEGIN}" if host else f".{BEGIN}" if not words else f"..{BEGIN}"
        return page_of(self._page(link, words), status, headers)

    def _refuse(self, status: int, words: str, headers: Mapping[str, str]) -> Response:
        return self._answer(words, status, headers)


class StateCookie:
    """Middleware that gives an app a session (Starlette's) in a signed cookie: for the way to the provider
    and back alone, as authlib needs it. It keeps one login that was begun; a second takes its place."""

    def __init__(self, app: ASGIApp, site: Site, secret: str) -> None:
        self._app, self._site, self._secret = app, site, secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        session = SessionMiddleware(
            self._app,
            secret_key=self._secret,
            session_cookie=self._site.cookie(f"{COOKIE}-state", request),
            max_age=MINUTES * 60,
            path=self._site.path,
            https_only=self._site.secure(request),
        )
        await session(scope, receive, send)


def _log(error: Exception) -> None:
    """Log for the owner which step failed. Without the error's own words, which may hold a code or a
    token."""
    cause = type(error.__cause__ or error).__name__
    logging.getLogger("stepwise").warning("A login with Hugging Face failed: %s", cause)
