"""In a real Chromium the server's own page does all that it does, under each of the server's names, and in a
frame of a site that the owner named."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Frame, FrameLocator, Page, expect

from tests.conftest import STEPS
from tests.security.support.browsing import ANN, EVIL, FRIEND, NAMES, at, port_of, who
from tests.security.support.other_site import OtherSite
from tests.ui.studio import SLOW, NamedStudio, Studio

pytestmark = pytest.mark.browser


class Framed:
    """The page in a frame, for Studio: what is done to a page, done to the frame; events are the tab's."""

    def __init__(self, page: Page, frame: Frame) -> None:
        self._page, self._frame = page, frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame if hasattr(self._frame, name) and name != "on" else self._page, name)


def log_in(page: Page) -> None:
    page.get_by_label("Name").or_(page.get_by_label("Username")).fill(ANN[0])
    page.get_by_label("Password").fill(ANN[1])
    page.get_by_role("button", name=re.compile("^Log ?in$", re.IGNORECASE)).click()


def draws_and_stops(tab: Studio) -> bytes:
    """Draws, and stops another drawing: the first one's pixels."""
    steps = STEPS[f"http://127.0.0.1:{port_of(tab.url)}"]
    tab.draw("a fox")
    shown = tab.shown().tobytes()
    steps.hold(1)
    tab.prompt.fill("a wolf")
    tab.draw_button.click()
    tab.wait_for_step(1)
    tab.stop_button.click()
    tab.wait_for("stopped")
    steps.go_on()
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_the_page_logs_in_draws_stops_remembers_and_logs_out(
    browser: BrowserContext, guarded: int, name: str
) -> None:
    tab = NamedStudio(browser.new_page(), f"http://{name}:{guarded}")
    tab.page.goto(tab.url)
    log_in(tab.page)
    expect(tab.draw_button).to_be_visible(timeout=SLOW)
    tab.page.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    shown = draws_and_stops(tab)
    tab.page.reload()
    expect(tab.draw_button).to_be_visible()
    tab.history.last.click()
    tab.wait_for("finished")
    assert tab.shown().tobytes() == shown
    assert who(browser, tab.url) == "ann"
    out = tab.page.locator("#who")
    out.get_by_role("link", name="Log out").or_(out.get_by_role("button", name="Log out")).click()
    expect(tab.page.get_by_label("Password")).to_be_visible(timeout=SLOW)
    assert who(browser, tab.url) is None


def test_a_tab_that_the_server_doesnt_know_any_more_says_why(browser: BrowserContext, unguarded: int) -> None:
    tab = NamedStudio(browser.new_page(), f"http://gpu-box:{unguarded}").open()
    # As if the owner had started it again, without this name.
    tab.page.set_extra_http_headers({"X-Forwarded-Host": "old.example.org"})
    tab.prompt.fill("a fox")
    tab.draw_button.click()
    expect(tab.notes).to_contain_text('421: This server isn\'t known by the name "old.example.org"')
    expect(tab.notes).to_contain_text("STEPWISE_HOSTS")


def test_a_person_at_another_name_is_shown_words_and_the_setting(
    browser: BrowserContext, guarded: int, unguarded: int
) -> None:
    for port in (guarded, unguarded):
        page = at(browser, f"http://my-server.example.com:{port}/")
        expect(page.get_by_role("heading")).to_have_text("This server isn't known by this address")
        expect(page.get_by_role("code")).to_have_text("STEPWISE_HOSTS=my-server.example.com")
        words = page.evaluate("fetch('config').then((answer) => answer.json())")["detail"]
        assert words.startswith(f'This server isn\'t known by the name "my-server.example.com:{port}".')


# Frames.


def framed(browser: BrowserContext, site: str, url: str) -> FrameLocator:
    page = at(browser, site)
    page.evaluate(
        """(src) => document.body.append(Object.assign(document.createElement("iframe"), {
          src, id: "framed", style: "width: 1200px; height: 900px", onload: () => window.loaded = true }))""",
        url,
    )
    page.wait_for_function("window.loaded")
    return page.frame_locator("#framed")


@pytest.mark.parametrize("name", NAMES)
def test_a_site_that_the_owner_didnt_name_cant_show_the_page_in_a_frame(
    browser: BrowserContext, site: OtherSite, guarded: int, unguarded: int, name: str
) -> None:
    for port, other in ((guarded, EVIL), (unguarded, EVIL), (guarded, FRIEND)):
        framed(browser, site.url(other), f"http://{name}:{port}/")
        shown = browser.pages[-1].frames[-1]
        shown.wait_for_url(re.compile("^chrome-error:"))  # Chromium's own page
        assert shown.locator("#prompt").count() == 0


@pytest.mark.parametrize("name", NAMES)
def test_in_a_frame_of_a_site_that_he_named_the_page_draws_and_stops(
    browser: BrowserContext, site: OtherSite, unguarded: int, name: str
) -> None:
    framed(browser, site.url(FRIEND), f"http://{name}:{unguarded}/")
    page = browser.pages[-1]
    (frame,) = [one for one in page.frames if one != page.main_frame]
    tab = NamedStudio(Framed(page, frame), f"http://{name}:{unguarded}")  # type: ignore[arg-type]
    expect(tab.draw_button).to_be_visible()
    frame.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    draws_and_stops(tab)
    frame.goto(tab.url)  # Chromium lets a frame of another site keep nothing: it starts anew
    expect(tab.draw_button).to_be_visible()
    frame.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    draws_and_stops(tab)
