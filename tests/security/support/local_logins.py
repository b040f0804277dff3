"""What the tests of the login by name and password share: who logs in, and where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
from pydantic import SecretStr

from api.auth.browser_login import Site
from api.auth.passwords import Accounts
from tests.api.conftest import Keyed
from tests.support.rest import TIMEOUT
from ui.login_page import logout_page, password_page

ANN, BOB = ("ann", "a horse: battery"), ("bób", "стапле")
PERSON = {"accept": "text/html,application/xhtml+xml", "sec-fetch-mode": "navigate"}


@contextlib.contextmanager
def browser(closed: Keyed, who: tuple[str, str] | None = ANN, **headers: str) -> Iterator[httpx.Client]:
    """One that is logged in; or, without a name, not yet."""
    with httpx.Client(base_url=closed.url, timeout=TIMEOUT, headers=headers) as client:
        if who:
            answer = client.post("/login", data={"username": who[0], "password": who[1]})
            assert answer.json() == {"success": True}
        yield client


def accounts(*logins: str, site: Site | None = None) -> Accounts:
    return Accounts([SecretStr(login) for login in logins], password_page, logout_page, site)
