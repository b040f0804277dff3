"""A real Chromium on the real server. A tab that logs an error fails its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.browser import launch_chromium
from tests.ui.studio import Studio

LAPTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/ui/" in item.path.as_posix():
            item.add_marker("browser")


@pytest.fixture(scope="package")  # not longer: Playwright keeps an event loop running meanwhile
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(chromium: Browser, server: str) -> Iterator[Callable[..., Studio]]:
    """Opens the page in a new tab; keywords are Playwright's for a context (color_scheme, viewport, …), or
    `context`, to be another tab of the same visitor's browser; `url`: of another server."""
    contexts: list[BrowserContext] = []
    tabs: list[Studio] = []

    def open_tab(context: BrowserContext | None = None, url: str = server, **options: Any) -> Studio:
        if context is None:
            context = chromium.new_context(**{"viewport": LAPTOP, **options})
            contexts.append(context)
        tabs.append(Studio(context.new_page(), url))
        return tabs[-1].open()

    yield open_tab
    for context in contexts:
        context.close()
    assert not (troubles := [words for tab in tabs for words in tab.unexplained()]), troubles


@pytest.fixture
def tab(open_tab: Callable[..., Studio]) -> Studio:
    """One tab on a laptop."""
    return open_tab()
