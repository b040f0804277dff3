"""Login by name and password (STEPWISE_LOGIN=name:password,…): a page of ours for people, which programs may
post to as well (gradio_client, @gradio/client); HTTP Basic for others. What asks for it stands in login.py.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from api.auth.browser_login import BrowserLogins, LogoutPage, Site, page_of
from api.auth.keys import GUESSES, digest
from api.auth.login import LoginRefused, too_many_guesses
from api.guard.access import PASSWORDS, Access, Refuse
from api.visitor import address_of
from jobs.scheduling.rate_limit import RateLimit
from pipeline.errors import RateLimited, SettingError

LOGIN = "/login"
LONGEST = 1_000
"""Characters of a name or of a password. Composing a text (NFC) takes time with the square of its length:
0.4 s for 24,000 accents on one letter."""
DAYS = 30.0
"""For which a login holds, if its browser isn't closed before."""
WRONG = "Incorrect credentials."
"""Gradio's own words (6.31), which its clients expect."""
WRONG_ON_PAGE = "That name and password don't belong together. Check both, and try again."

PasswordPage = Callable[[str], str]
"""Renders the login page: what went wrong, or nothing."""


class Accounts:
    """The names and passwords that may log in."""

    access: tuple[Access, ...] = PASSWORDS
    shapes: Mapping[str, Refuse] = MappingProxyType({})  # /login refuses as Gradio does
    challenge = 'Basic realm="Stepwise", charset="UTF-8"'
    words = (
        "This server asks for a login: log in on its page, or send a user's name and password as HTTP "
        "Basic (gradio_client: auth=(name, password))."
    )

    def __init__(
        self, accounts: Sequence[SecretStr], page: PasswordPage, logout: LogoutPage, site: Site | None = None
    ) -> None:
        """
        Args:
            accounts: each a name, a colon, and a password.
            site: where browsers find the server; None: where it listens.

        Raises:
            SettingError: one is too long.
        """
        self._page = page
        self.browsers = BrowserLogins(site or Site(), logout)
        parts = [account.get_secret_value().partition(":") for account in accounts]
        self._accounts = [(normalized(name), _secret(name), _secret(password)) for name, _, password in parts]
        for number, (name, _, password) in enumerate(parts, 1):
            if max(len(name), len(password)) > LONGEST:
                raise SettingError(
                    f"STEPWISE_LOGIN: login {number} has a name or a password of more than {LONGEST:,} "
                    "characters, the most that is read."
                )
        self._guesses = RateLimit(GUESSES, doing="wrong passwords")
        self.who = f"one of the {len(parts)} in STEPWISE_LOGIN: people on the page, programs as HTTP Basic"

    def verify(self, name: str, password: str, address: str) -> str | None:
        """Return which user this is, by the name that the owner wrote, or None. There is no await in it, so
        of guesses that come at once each counts.

        Raises:
            RateLimited: too many wrong ones came from this address; right or wrong, this isn't looked at.
        """
        self._guesses.allow(address)
        long = max(len(name), len(password)) > LONGEST  # nobody's; looked up as the empty name, which is none
        given = _secret("" if long else name), _secret("" if long else password)
        found = None
        for known, *secrets in self._accounts:  # every one is compared, whichever of them it is
            # Apart: joined by a colon, the name “ann:x” and the password “y” would be “ann” and “x:y”.
            same = [hmac.compare_digest(one, other) for one, other in zip(given, secrets, strict=True)]
            found = known if all(same) else found
        if found is None:
            self._guesses.count(address)
        return found

    async def sent(self, headers: Headers, address: str) -> str | None:
        """Implements `login.Login`, by HTTP Basic."""
        given = _basic(headers)
        if given is None:
            return None
        try:
            name = self.verify(*given, address)
        except RateLimited as error:
            raise too_many_guesses(error) from None
        if name is None:
            raise LoginRefused(401, self.words)
        return name

    def remembered(self, request: Request) -> str | None:
        """Implements `login.Login`."""
        return self.browsers.name(request)

    def page(self, request: Request) -> Response | None:
        """Implements `login.Login`."""
        return page_of(self._page("")) if request.method in ("GET", "HEAD") else None

    def routes(self) -> list[BaseRoute]:
        """Implements `login.Login`."""
        return [
            Route(LOGIN, self._log_in, methods=["POST"]),
            Route(LOGIN, self._to_page, methods=["GET"]),
            *self.browsers.routes(),
        ]

    async def _to_page(self, request: Request) -> Response:
        """Send whoever made a mistake to the page, to try again."""
        return RedirectResponse("./", 303)

    async def _log_in(self, request: Request) -> Response:
        """Answer the login page's form; and programs that log in as Gradio's own clients do, as Gradio (6.31)
        answers them."""
        person = "text/html" in request.headers.get("accept", "")
        async with request.form(max_files=0, max_fields=20) as form:
            name, password = (str(form.get(field, "")) for field in ("username", "password"))
        try:
            known = self.verify(name.strip(), password, address_of(request.scope))
        except RateLimited as error:
            away = too_many_guesses(error)
            return self._refused(person, away.status, away.words, away.headers)
        if known is None:
            return self._refused(person, 400, WRONG_ON_PAGE if person else WRONG)
        answer = RedirectResponse("./", 303) if person else JSONResponse({"success": True})
        answer.headers["Cache-Control"] = "no-store"
        self.browsers.begin(request, answer, known, DAYS * 24 * 3600, lasts=False)
        return answer

    def _refused(
        self, person: bool, status: int, words: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        return (
            page_of(self._page(words), status, headers)
            if person
            else JSONResponse({"detail": words}, status, headers)
        )


def normalized(text: str) -> str:
    """Return a text in the one spelling that its letters have (NFC): keyboards differ in how they write an é.
    RFC 8265 asks for this of names and passwords, and for nothing that would make different letters the
    same."""
    return unicodedata.normalize("NFC", text)


def _secret(text: str) -> bytes:
    return digest(normalized(text).encode("utf-8", "surrogatepass"))


def _basic(headers: Headers) -> tuple[str, str] | None:
    """Return the name and password of HTTP Basic (RFC 7617), or None where it is another way, or none."""
    values = headers.getlist("authorization")
    scheme, _, encoded = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return name, password
