"""Login by name and password (STEPWISE_LOGIN=name:password,…): Gradio's own page (6.31) for people, HTTP
Basic for programs. What asks for it stands in login.py.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import HTTPException
from gradio.route_utils import API_PREFIX
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from api.guard import Refuse, digest
from api.login import ALWAYS_OPEN, ASKING, GUESSES, TurnedAway, too_many
from jobs.rate import RateLimit
from pipeline.errors import RateLimited

OPEN = ALWAYS_OPEN | {"/", "/login", "/login/", "/logout", "/theme.css", f"{API_PREFIX}/theme.css"}
"""What answers without a login: health, and what the login page needs. `/` is that page, for who has none."""
OPEN_BELOW = ("/assets/", "/static/", "/svelte/")
"""Gradio's own scripts and fonts, the same on every server."""


class Accounts:
    """Who may log in. Gives `Blocks.launch` its `auth`."""

    open: frozenset[str] = OPEN
    open_below: tuple[str, ...] = OPEN_BELOW
    challenge = 'Basic realm="Stepwise", charset="UTF-8"'
    words = (
        "This server asks for a login: log in on its page, or send a user's name and password as HTTP "
        "Basic (gradio_client: auth=(name, password))."
    )

    shapes: Mapping[str, Refuse] = MappingProxyType({})  # the page's own path is Gradio's

    def __init__(self, accounts: Sequence[SecretStr]) -> None:
        """accounts: each a name, a colon, and a password."""
        names = [account.get_secret_value().partition(":") for account in accounts]
        self._accounts = [(name, digest(f"{name}:{password}".encode())) for name, _, password in names]
        self._guesses = RateLimit(GUESSES, doing="wrong passwords")
        self.who = f"one of the {len(names)} in STEPWISE_LOGIN: people on the page, programs as HTTP Basic"

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
            return self.check(name, password, ASKING.get())
        except RateLimited as error:
            refusal = too_many(error)
            raise HTTPException(refusal.status, refusal.words, refusal.headers) from None

    async def sent(self, headers: Headers, address: str) -> str | None:
        """As of `login.Login`: by HTTP Basic."""
        given = _basic(headers)
        if given is None:
            return None
        try:
            if self.check(*given, address):
                return given[0]
        except RateLimited as error:
            raise too_many(error) from None
        raise TurnedAway(401, self.words)

    def remembered(self, app: Any, cookies: Mapping[str, str]) -> str | None:
        """As of `login.Login`: by Gradio's cookie."""
        tokens = [cookies.get(f"access-token-{kind}{app.cookie_id}") for kind in ("", "unsecure-")]
        return next((app.tokens[token] for token in tokens if token in app.tokens), None)

    def page(self, request: Request) -> Response | None:
        """As of `login.Login`: Gradio has one."""
        return None

    def routes(self) -> list[BaseRoute]:
        """As of `login.Login`: Gradio has them."""
        return []


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
