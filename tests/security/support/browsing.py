"""What the tests in a real Chromium share: the server's names and accounts, and who a browser is to it."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
from playwright.sync_api import BrowserContext, Page

from tests.support.rest import TIMEOUT, read_figures

ANN, BOB = ("ann", "a horse: battery"), ("bob", "another word")
NAME = "draw.example.org"
NAMES = ("127.0.0.1", "gpu-box", NAME)
"""Of the server's. A browser trusts the first as it does https; to others it sends no Sec-Fetch-Site."""
TRUSTED_OR_NOT = ("127.0.0.1", NAME)
"""One of each kind. To a browser the third is as the second of these, and the server reads the same headers
of what comes by it, once it answers to the name."""
EVIL, FRIEND = "evil.example", "friend.example"


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def figures(port: int) -> dict[tuple[str, ...], float]:
    """How many jobs there are, and were."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", auth=ANN, timeout=TIMEOUT)
    return {name: n for name, n in read_figures(answer.text).items() if name[0].startswith("stepwise_jobs")}


def who(browser: BrowserContext, url: str) -> str | None:
    """Who this browser is to the server."""
    page = at(browser, f"{url}/robots.txt")
    config = page.evaluate("fetch('config').then((answer) => answer.json())")
    page.close()
    return config.get("username")


def at(browser: BrowserContext, url: str) -> Page:
    """A tab with a page that has no script of its own."""
    page = browser.new_page()
    page.goto(url)
    return page
