"""A real Chromium on the real server. A tab that logs an error fails its test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, ViewportSize, expect, sync_playwright

from tests.support.browser import launch_chromium
from tests.ui.studio import SLOW, Studio

expect.set_options(timeout=SLOW)  # Playwright's five seconds are few on a busy machine
LAPTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


@pytest.fixture(scope="package")  # not longer: Playwright keeps an event loop running meanwhile
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright)
        yield browser
        browser.close()


@dataclass
class Visitor:
    """A browser, and those of its tabs that can be used again: a page opens in one of them in a fifth of the
    time that it takes in a new one."""

    context: BrowserContext
    free: list[Page] = field(default_factory=list)

    def take_back(self, tab: Studio) -> None:
        try:
            tab.leave()
        except Error:  # whatever a test did to it
            tab.page.close()
        else:
            self.free.append(tab.page)


@pytest.fixture(scope="package")
def visitors(chromium: Browser) -> Callable[..., Visitor]:
    """Gives the visitor whose browser has these options. There is one for each set of them: what the page is
    made of is fetched and compiled once."""
    known: dict[str, Visitor] = {}

    def visitor(**options: Any) -> Visitor:
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = Visitor(chromium.new_context(**options))
        return known[key]

    return visitor


@pytest.fixture
def open_tab(visitors: Callable[..., Visitor], server: str) -> Iterator[Callable[..., Studio]]:
    """Opens the page in a tab that remembers nothing.

    Keywords: `context`, to be another tab of the same visitor's browser; `url`, of another server; what the
    window and the visitor's system are like (viewport, color_scheme, reduced_motion); others are Playwright's
    for a context.
    """
    opened: list[tuple[Studio, Visitor | None]] = []

    def open_tab(
        context: BrowserContext | None = None,
        url: str = server,
        viewport: ViewportSize = LAPTOP,
        color_scheme: Any = "light",
        reduced_motion: Any = "no-preference",
        **options: Any,
    ) -> Studio:
        visitor = visitors(**options)
        again = context is None and url == server
        page = visitor.free.pop() if again and visitor.free else (context or visitor.context).new_page()
        page.set_default_timeout(SLOW)
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
        tab = Studio(page, url)
        opened.append((tab, visitor if again else None))
        return tab.open()

    yield open_tab
    for tab, visitor in opened:
        if visitor and not tab.page.is_closed():
            visitor.take_back(tab)
        else:
            tab.page.close()
    assert not (troubles := [words for tab, _ in opened for words in tab.unexplained()]), troubles


@pytest.fixture(scope="module")
def shared_tab(visitors: Callable[..., Visitor], scripted_server: str) -> Iterator[Studio]:
    """One tab on a laptop for all tests of a file that ask for it: they leave it as the next can use it."""
    visitor = visitors()
    page = visitor.free.pop() if visitor.free else visitor.context.new_page()
    page.set_default_timeout(SLOW)
    page.set_viewport_size(LAPTOP)
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    tab = Studio(page, scripted_server).open()
    yield tab
    visitor.take_back(tab)
    assert not (troubles := tab.unexplained()), troubles


@pytest.fixture
def tab(open_tab: Callable[..., Studio]) -> Studio:
    """One tab on a laptop."""
    return open_tab()
