"""Login by name and password (STEPWISE_LOGIN=name:password,…): Gradio's own page (6.31) for people, HTTP
Basic for programs. What asks for it stands in login.py.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import HTTPException
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from api.access import PASSWORDS, Access
from api.guard import GUESSES, Refuse, digest
from api.login import ASKING, TurnedAway, too_many
from jobs.rate import RateLimit
from pipeline.errors import RateLimited


class Accounts:
    """Who may log in. Gives `Blocks.launch` its `auth`."""

    access: tuple[Access, ...] = PASSWORDS
    challenge = 'Basic realm="Stepwise", charset="UTF-8"'
    words = (
        "This server asks for a login: log in on its page, or send a user's name and password as HTTP "
        "Basic (gradio_client: auth=(name, password))."
    )

    shapes: Mapping[str, Refuse] = MappingProxyType({})  # the page's own path is Gradio's

    def __init__(self, accounts: Sequence[SecretStr]) -> None:
        """accounts: each a name, a colon, and a password."""
        parts = [account.get_secret_value().partition(":") for account in accounts]
        self._accounts = [(composed(name), _secret(name), _secret(password)) for name, _, password in parts]
        self._guesses = RateLimit(GUESSES, doing="wrong passwords")
        self.who = f"one of the {len(parts)} in STEPWISE_LOGIN: people on the page, programs as HTTP Basic"

    def check(self, name: str, password: str, address: str) -> str | None:
        """Which of them this is, by the name that the owner wrote; None: none. There is no await in it, so of
        guesses that come at once each counts.

        Raises:
            RateLimited: too many wrong ones came from this address; right or wrong, this isn't looked at.
        """
        self._guesses.allow(address)
        given = _secret(name), _secret(password)
        found = None
        for known, *secrets in self._accounts:  # every one is compared, whichever of them it is
            # Apart: joined by a colon, the name “ann:x” and the password “y” would be “ann” and “x:y”.
            same = [hmac.compare_digest(one, other) for one, other in zip(given, secrets, strict=True)]
            found = known if all(same) else found
        if found is None:
            self._guesses.count(address)
        return found

    def auth(self, name: str, password: str) -> bool:
        """Gradio's login page asks this, within the request."""
        try:
            return self.check(name, password, ASKING.get()) is not None
        except RateLimited as error:
            refusal = too_many(error)
            raise HTTPException(refusal.status, refusal.words, refusal.headers) from None

    async def sent(self, headers: Headers, address: str) -> str | None:
        """As of `login.Login`: by HTTP Basic."""
        given = _basic(headers)
        if given is None:
            return None
        try:
            name = self.check(*given, address)
        except RateLimited as error:
            raise too_many(error) from None
        if name is None:
            raise TurnedAway(401, self.words)
        return name

    def remembered(self, app: Any, cookies: Mapping[str, str]) -> str | None:
        """As of `login.Login`: by Gradio's cookie."""
        tokens = [cookies.get(f"access-token-{kind}{app.cookie_id}") for kind in ("", "unsecure-")]
        token = next((token for token in tokens if token in app.tokens), None)
        if token is None:
            return None
        app.tokens[token] = composed(app.tokens[token])  # Gradio knows the name as it was typed
        return app.tokens[token]

    def page(self, request: Request) -> Response | None:
        """As of `login.Login`: Gradio has one."""
        return None

    def routes(self) -> list[BaseRoute]:
        """As of `login.Login`: Gradio has them."""
        return []


def composed(text: str) -> str:
    """A text in the one spelling that its letters have (NFC): keyboards differ in how they write an é. RFC
    8265 asks for this of names and passwords, and for nothing that would make different letters the same."""
    return unicodedata.normalize("NFC", text)


def _secret(text: str) -> bytes:
    return digest(composed(text).encode("utf-8", "surrogatepass"))


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
