"""Login with Hugging Face (STEPWISE_LOGIN=huggingface): people by OpenID Connect (OAuth) at the Hub, programs
with a Hub token (hub_tokens.py). What asks for it stands in login.py.

Gradio's own routes for this (6.31) aren't used: off a Space they let everyone in as the server's own account,
they keep the access token in the visitor's cookie, and they redirect to where the request says.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.base_client.errors import MismatchingStateError
from authlib.integrations.starlette_client import OAuth
from gradio.route_utils import get_root_url
from joserfc.errors import JoseError
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from api.access import HUGGING_FACE, Access
from api.behind_proxy import path_of
from api.guard import Refuse, digest
from api.hub_tokens import TOKENS, Guesses, HubTokens, Members, Person
from api.login import TurnedAway
from api.sites import SITE
from api.visitor import address_of
from pipeline.errors import SettingError, quoted

BEGIN, CALLBACK, LOGOUT = "/login/huggingface", "/login/callback", "/logout"
COOKIE = "stepwise-login"
SCOPE = "openid profile"
"""What is asked of the account: its name and organisations, nothing to be done with it."""
HOURS = 8.0
"""For which a login holds where the provider doesn't say it: the Hub's own default."""
MOST_LOGINS = 10_000
"""That are kept; of more, the oldest end."""
MINUTES = 10
"""Within which one must come back from the provider."""
PATIENCE = 10.0
"""Seconds for one answer of the provider's."""

AGAIN = "That login was begun in another browser, or more than ten minutes ago. Log in once more."
DENIED = "Hugging Face didn't log you in: it was refused there, or the answer is none of its own."
UNREACHABLE = "Hugging Face can't be reached from this server right now: try again a little later."

LoginPage = Callable[[str, str], str]
"""Renders the login page: where its button leads, and what went wrong, or nothing."""


@dataclass(frozen=True)
class Provider:
    """Where one logs in, and as which OAuth app. host: the Space's own, to which the Hub sends people back;
    empty: this is none."""

    client_id: str
    client_secret: str = field(repr=False)
    url: str = "https://huggingface.co"
    host: str = ""

    @classmethod
    def from_environment(cls) -> Provider:
        """As a Space with `hf_oauth: true` sets it.

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
            # A list where the Space has a domain of its own; the Hub sends people back to the first.
            os.environ.get("SPACE_HOST", "").split(",")[0].strip(),
        )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False


class HubLogin:
    """As of `login.Login`. For use on one event loop."""

    access: tuple[Access, ...] = HUGGING_FACE
    challenge = 'Bearer realm="Stepwise"'
    words = (
        "This server asks for a login with Hugging Face: log in on its page, or send a Hub token "
        f"({TOKENS}) as “Authorization: Bearer hf_…” (gradio_client: token=…)."
    )
    auth = None

    def __init__(
        self, provider: Provider, users: Collection[str], page: LoginPage, root_path: str = ""
    ) -> None:
        """
        Args:
            users: names of users and organisations that may come in; none: everyone with an account.
            root_path: where a proxy says that the app is. Its cookies are for that path alone: another one
                may stand on the same host.
        """
        self._provider, self._members, self._page, self._root_path = provider, Members(users), page, root_path
        self._cookies_below = path_of(root_path) or "/"
        self._tokens, self._guesses, self._logins = HubTokens(), Guesses("failed logins"), Logins()
        self._oauth: Any = OAuth().register(
            name="huggingface",
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            client_kwargs={"scope": SCOPE, "code_challenge_method": "S256", "timeout": PATIENCE},
            server_metadata_url=f"{provider.url}/.well-known/openid-configuration",
        )
        self.shapes: Mapping[str, Refuse] = dict.fromkeys((BEGIN, CALLBACK, LOGOUT), self._refuse)
        whom = f"those in STEPWISE_USERS ({len(users)})" if users else "everyone with an account may"
        self.who = f"with Hugging Face ({whom}): people on the page, programs with a Hub token"

    async def sent(self, headers: Headers, address: str) -> str | None:
        """By a token. gradio_client (2.7) sends its own in X-HF-Authorization, for the Hub's proxy and us."""
        for name in ("authorization", "x-hf-authorization"):
            values = headers.getlist(name)
            scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
            if scheme.lower() == "bearer" and token.strip().startswith("hf_"):
                return self._members.let_in(await self._tokens.person(token.strip(), address))
        return None

    def remembered(self, app: Any, cookies: Mapping[str, str]) -> str | None:
        return self._logins.name(cookies.get(COOKIE, ""))

    def page(self, request: Request) -> Response | None:
        return self._answer() if request.method in ("GET", "HEAD") else None

    def routes(self) -> list[BaseRoute]:
        # Of the way to the provider and back alone; kept by the browser, signed, as authlib wants it.
        state = Middleware(
            SessionMiddleware,
            secret_key=secrets.token_urlsafe(32),
            session_cookie=f"{COOKIE}-state",
            max_age=MINUTES * 60,
            path=self._cookies_below,
            https_only=bool(self._provider.host),
        )
        return [
            Route(BEGIN, self._begin, middleware=[state]),
            Route(CALLBACK, self._callback, middleware=[state]),
            Route(LOGOUT, self._logout),
        ]

    async def _begin(self, request: Request) -> Response:
        try:
            return await self._oauth.authorize_redirect(request, self._address(request, CALLBACK))
        except (httpx.HTTPError, AuthlibBaseError, ValueError) as error:
            _log(error)
            return self._answer(UNREACHABLE, 502)

    async def _callback(self, request: Request) -> Response:
        try:
            async with self._guesses.one(address_of(request.scope)):
                person, seconds = await self._person(request)
            name = self._members.let_in(person)
        except TurnedAway as away:
            return self._answer(away.words, away.status, away.headers)
        answer = RedirectResponse("../", 303)
        secure = self._secure(request)
        answer.set_cookie(
            COOKIE,
            self._logins.begin(name, seconds),
            max_age=round(seconds),
            path=self._cookies_below,
            secure=secure,
            httponly=True,
            samesite="none" if secure else "lax",  # a Space's page stands in a frame of another site
        )
        return answer

    async def _person(self, request: Request) -> tuple[Person, float]:
        """Who comes back from the provider, and the seconds for which it says so.

        Raises:
            TurnedAway: nobody does. With 401 it may have been a guess.
        """
        try:
            token = await self._oauth.authorize_access_token(request)
            about = await self._oauth.userinfo(token=token)
            # The same one's (OpenID Connect Core 1.0, 5.3.2); `userinfo` is what the signed ID token says.
            if about["sub"] != token["userinfo"]["sub"]:
                raise TurnedAway(401, DENIED)
            # One who must still satisfy an organisation's security rules isn't in it yet.
            theirs = [one for one in about.get("orgs") or () if not one.get("securityRestrictions")]
            organisations = frozenset(str(one["preferred_username"]) for one in theirs)
            seconds = float(token.get("expires_in") or HOURS * 3600)
            return Person(str(about["preferred_username"]), organisations), seconds
        except MismatchingStateError:
            raise TurnedAway(400, AGAIN) from None
        except httpx.TransportError as error:
            _log(error)
            raise TurnedAway(502, UNREACHABLE) from None
        except (httpx.HTTPError, AuthlibBaseError, JoseError, KeyError, TypeError, ValueError) as error:
            _log(error)
            raise TurnedAway(401, DENIED) from None

    async def _logout(self, request: Request) -> Response:
        answer = RedirectResponse("./", 303)
        if request.scope[SITE] in ("own", "unknown"):
            self._logins.end(request.cookies.get(COOKIE, ""))
            secure = self._secure(request)
            answer.delete_cookie(
                COOKIE,
                path=self._cookies_below,
                secure=secure,
                httponly=True,
                samesite="none" if secure else "lax",
            )
        return answer

    def _answer(
        self, words: str = "", status: int = 200, headers: Mapping[str, str] | None = None
    ) -> HTMLResponse:
        # Whole where the Hub sends people back to one of several hosts: the way there must begin at that one.
        host = self._provider.host
        link = f"https://{host}{BEGIN}" if host else f".{BEGIN}" if not words else f"..{BEGIN}"
        kept = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
        return HTMLResponse(self._page(link, words), status, kept)

    def _refuse(self, status: int, words: str, headers: Mapping[str, str]) -> Response:
        return self._answer(words, status, headers)

    def _address(self, request: Request, path: str) -> str:
        if self._provider.host:
            return f"https://{self._provider.host}{path}"
        return get_root_url(request, request.url.path, self._root_path) + path

    def _secure(self, request: Request) -> bool:
        return self._address(request, "").startswith("https:")


class Logins:
    """The logins that hold: each has a name that can't be guessed, which its browser alone keeps."""

    def __init__(self) -> None:
        self._names: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def begin(self, name: str, seconds: float) -> str:
        """What the browser shall keep."""
        token = secrets.token_urlsafe(32)
        self._names[digest(token.encode())] = time.monotonic() + seconds, name
        if len(self._names) > MOST_LOGINS:
            self._names.popitem(last=False)
        return token

    def name(self, token: str) -> str | None:
        """Whose it is; None: nobody's, or no longer."""
        key = digest(token.encode("utf-8", "surrogatepass"))
        until, name = self._names.get(key, (0.0, None))
        if name is not None and until <= time.monotonic():
            del self._names[key]
            return None
        return name

    def end(self, token: str) -> None:
        self._names.pop(digest(token.encode("utf-8", "surrogatepass")), None)


def _log(error: Exception) -> None:
    """For the owner: which step failed. Not the error's own words, which may hold a code or a token."""
    logging.getLogger("stepwise").warning("A login with Hugging Face failed: %s", type(error).__name__)
