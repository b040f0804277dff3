"""The login that an owner may ask for (STEPWISE_LOGIN): Gradio's page for people, HTTP Basic for programs,
and a guard before every route, for Gradio's own (6.31) leaves some open and sets no limit to guesses.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from fastapi import HTTPException
from gradio.route_utils import API_PREFIX
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard import LET_IN, AskForKey, Refuse, digest, under
from api.visitor import USER, address_of
from jobs.rate import RateLimit
from pipeline.errors import RateLimited

OPEN = frozenset(
    {"/", "/login", "/login/", "/logout", "/livez", "/readyz", "/theme.css", f"{API_PREFIX}/theme.css"}
    | {"/favicon.ico", "/manifest.json", "/robots.txt", f"{API_PREFIX}/startup-events"}
)
"""What answers without a login: health, and what the login page needs. `/` is that page, for who has none;
at /startup-events Gradio looks whether it has started, and learns no more."""
OPEN_BELOW = ("/assets/", "/static/", "/svelte/")
"""Gradio's own scripts and fonts, the same on every server."""
FILES = f"{API_PREFIX}/file="
"""Where the pictures are that /v1 and /mcp give the addresses of: a key that opens these opens it."""
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Stepwise", charset="UTF-8"'}
GUESSES = "5/minute, 50/hour"
"""Wrong passwords from one address, after which it is told to wait."""

_asking: ContextVar[str] = ContextVar("the address that this request came from", default="unknown")


class Accounts:
    """Who may log in. Gives `Blocks.launch` its `auth`."""

    def __init__(self, accounts: Sequence[SecretStr]) -> None:
        """accounts: each a name, a colon, and a password."""
        names = [account.get_secret_value().partition(":") for account in accounts]
        self._accounts = [(name, digest(f"{name}:{password}".encode())) for name, _, password in names]
        self._guesses = RateLimit(GUESSES, doing="wrong passwords")

    def __len__(self) -> int:
        return len(self._accounts)

    def check(self, name: str, password: str, address: str) -> bool:
        """Whether this is one of them. There is no await in it, so of guesses that come at once each counts.

        Raises:
            RateLimited: too many wrong ones came from this address; right or wrong, this isn't looked at.
        """
        self._guesses.allow(address)
        given = digest(f"{name}:{password}".encode("utf-8", "surrogatepass"))
        # A list, not a generator: every one is compared, whichever of them it is.
        right = any([hmac.compare_digest(given, known) for _, known in self._accounts])  # noqa: C419
        if not right:
            self._guesses.count(address)
        return right

    def auth(self, name: str, password: str) -> bool:
        """Gradio's login page asks this, within the request."""
        try:
            return self.check(name, password, _asking.get())
        except RateLimited as error:
            raise HTTPException(429, str(error), _retry_after(error)) from None


class AskForLogin:
    """Lets those through that are logged in: by Gradio's cookie; by HTTP Basic; and, on the programs' routes,
    by a key. Those who come by Basic get Gradio's cookie for this one request, so that it knows them too."""

    def __init__(
        self,
        app: ASGIApp,
        accounts: Accounts,
        keys: Sequence[SecretStr],
        shapes: Mapping[str, Refuse],
        other: Refuse,
    ) -> None:
        """
        Args:
            keys: that open the programs' routes.
            shapes: these routes, each what its paths begin with, and how they refuse. other: how Gradio's do.
        """
        self._app, self._accounts, self._shapes, self._other = app, accounts, shapes, other
        self._keys = AskForKey(app, other, keys)
        self._has_keys = bool(keys)
        self._tokens: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = get_route_path(scope)
        refuse = next((how for start, how in self._shapes.items() if under(path, start)), None)
        _asking.set(address_of(scope))
        if path in OPEN or path.startswith(OPEN_BELOW):
            await self._app(scope, receive, send)
            return
        try:
            known = self._known(scope, programs=refuse is not None, files=path.startswith(FILES))
        except RateLimited as error:
            answer = (refuse or self._other)(429, str(error), _retry_after(error))
            await answer(scope, receive, send)
            return
        if known is None:
            challenge = (
                {} if refuse is None else {"WWW-Authenticate": 'Basic realm="Stepwise", charset="UTF-8"'}
            )
            answer = (refuse or self._other)(401, self._words(), challenge)
            await answer(scope, receive, send)
            return
        await self._app(known, receive, send)

    def _known(self, scope: Scope, programs: bool, files: bool) -> Scope | None:
        """The scope as the app shall see it; None: it is nobody's that we know."""
        headers = Headers(scope=scope)
        given = _basic(headers)
        if given is not None:
            name = given[0]
            return self._as(scope, name) if self._accounts.check(*given, _asking.get()) else None
        if (programs or files) and self._has_keys and self._keys.known(scope):
            return self._as(scope, "")
        if programs or _from_another_site(headers, scope["method"]):
            return None
        app, cookies = scope["app"], cookie_parser(headers.get("cookie", ""))
        tokens = [cookies.get(f"access-token-{kind}{app.cookie_id}") for kind in ("", "unsecure-")]
        user = next((app.tokens[token] for token in tokens if token in app.tokens), None)
        return None if user is None else {**scope, USER: user}

    def _as(self, scope: Scope, name: str) -> Scope:
        """This user's request; the empty name is a key's, which Gradio takes for a user without a name."""
        app: Any = scope["app"]
        token = self._tokens.setdefault(name, secrets.token_urlsafe(32))
        app.tokens[token] = name  # /logout forgets all of a user's
        cookie = (b"cookie", f"access-token-{app.cookie_id}={token}".encode())
        headers = [header for header in scope["headers"] if header[0] != b"cookie"] + [cookie]
        return {**scope, "headers": headers, LET_IN: True, **({USER: name} if name else {})}

    def _words(self) -> str:
        key = "On /v1 and /mcp, one of its keys as “Authorization: Bearer …” is enough."
        return (
            "This server asks for a login: log in on its page, or send a user's name and password as HTTP "
            "Basic (gradio_client: auth=(name, password))." + (f" {key}" if self._has_keys else "")
        )


def _basic(headers: Headers) -> tuple[str, str] | None:
    """The name and password of HTTP Basic (RFC 7617); None where it is another way, or none."""
    values = headers.getlist("authorization")
    scheme, _, encoded = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return name, password


def _from_another_site(headers: Headers, method: str) -> bool:
    """Whether a browser says that another site's page asks, other than by following a link. Gradio's cookie
    goes with such a request (a Space's page stands in a frame of another site), and its CORS allows any."""
    followed = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and not followed


def _retry_after(error: RateLimited) -> dict[str, str]:
    return {"Retry-After": f"{round(error.retry_after or 60) + 1}"}
