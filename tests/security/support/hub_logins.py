"""What the tests of the login with Hugging Face share: a browser that logs in at a provider of the test's."""

from __future__ import annotations

import re
from typing import Any

import httpx
import httpx2
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.auth.hub_login import HubLogin, Provider
from tests.support.rest import TIMEOUT
from tests.support.services.openid import CLIENT, DISCOVERY, SECRET, OpenIdProvider
from ui.login_page import login_page, logout_page

HERE = "http://testserver"


def login_at(hub: OpenIdProvider, **options: Any) -> HubLogin:
    return HubLogin(Provider(CLIENT, SECRET, hub.url, **options), (), login_page, logout_page)


def browser_of(login: HubLogin, address: str = HERE) -> TestClient:
    return TestClient(Starlette(routes=login.routes()), address, follow_redirects=False)


def go(browser: TestClient) -> str:
    """The way to the provider, and where it leads back."""
    there = browser.get("/login/huggingface")
    assert there.status_code == 302, there.text
    page = httpx.get(there.headers["location"], timeout=TIMEOUT).text
    found = re.search(r'href="([^"]+)">Authorize', page)
    assert found, page
    return found[1].replace("&amp;", "&")


def log_in(browser: TestClient) -> httpx2.Response:
    return browser.get(go(browser))


def reach(path: str, browser: TestClient) -> httpx2.Response:
    """The answer of the step of a login that asks the provider for this."""
    return browser.get("/login/huggingface") if path == DISCOVERY else log_in(browser)


def kept(answer: httpx2.Response) -> list[str]:
    """The logins that the browser is told to keep."""
    cookies = [one for one in answer.headers.get_list("set-cookie") if "-state" not in one]
    return [one for one in cookies if not re.match(r'[\w-]+=(""|null)?;', one)]


def assert_nobody(answer: httpx2.Response, *statuses: int) -> None:
    assert answer.status_code in (statuses or (401,)), (answer.status_code, answer.text[:300])
    assert not kept(answer)
    assert 'role="alert"' in answer.text  # a page, in words
    assert len(answer.text) < 20_000
