"""A finished picture that doesn't arrive is asked for again; only a server that says so has deleted it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Route, expect

from tests.support.steps import Steps
from tests.ui.studio import SLOW, Studio

FILE = re.compile("file=")
PREVIEW = re.compile("^data:image/jpeg")
DELETED, LATE = "has deleted this picture's file", "hasn't arrived yet"


@pytest.fixture
def late(tab: Studio) -> Studio:
    tab.allow("Failed to load resource", reason="the test loses the picture")
    tab.make_quick()
    return tab


def test_a_picture_that_fails_once_is_fetched_again(late: Studio) -> None:
    late.page.route("**/file=**", lambda route: route.abort(), times=1)
    late.draw()  # until its file is shown
    expect(late.notes).to_be_empty()
    expect(late.downloads).to_have_text("Download")


def test_until_then_its_preview_is_shown_it_can_be_downloaded_and_nothing_is_said_to_be_deleted(
    late: Studio,
) -> None:
    answers: list[Callable[[Route], None]] = []
    late.page.route("**/file=**", lambda route: answers[-1](route))
    for status in (500, 502, 403):
        answers.append(lambda route, status=status: route.fulfill(status=status))
        late.draw_button.click()
        expect(late.notes).to_contain_text(LATE, timeout=SLOW)
        expect(late.notes).not_to_contain_text(DELETED)
        expect(late.pictures.first).to_have_attribute("src", PREVIEW)
        expect(late.downloads).to_have_text("Download")
        answers.append(lambda route: route.continue_())
        expect(late.pictures.first).to_have_attribute("src", FILE, timeout=SLOW)
        expect(late.notes).to_be_empty()


def test_it_is_fetched_at_once_when_the_connection_or_the_visitor_comes_back(late: Studio) -> None:
    # Its pause never passes by itself: what the page asks for in a second or more doesn't happen.
    late.page.evaluate(
        """() => {
          const set = setTimeout;
          window.setTimeout = (call, ms, ...more) => ms >= 1000 ? 0 : set(call, ms, ...more);
        }"""
    )
    for event in ("online", "visibilitychange"):
        late.page.route("**/file=**", lambda route: route.abort())
        late.draw_button.click()
        expect(late.notes).to_contain_text(LATE, timeout=SLOW)
        late.page.unroute("**/file=**")
        late.page.evaluate(
            "name => (name === 'online' ? window : document).dispatchEvent(new Event(name))", event
        )
        expect(late.pictures.first).to_have_attribute("src", FILE, timeout=SLOW)
        expect(late.notes).to_be_empty()


def test_a_picture_that_the_server_deleted_stays_so_however_often_it_is_looked_at(late: Studio) -> None:
    late.set(steps=2)
    late.draw("a red apple")
    late.draw("a fox")
    statuses: list[int] = []
    for status in (404, 410):
        late.open()
        if not statuses:
            late.page.route("**/file=**", lambda route: route.fulfill(status=statuses[-1]))
        statuses.append(status)
        for index in (0, 0, 1, 0):
            preview = late.history.nth(index).locator("img").get_attribute("src") or ""
            late.history.nth(index).click()
            expect(late.notes).to_contain_text(DELETED)
            expect(late.pictures.first).to_have_attribute("src", preview)
            expect(late.downloads).to_have_count(0)


def test_of_several_pictures_each_has_its_own_fate(late: Studio) -> None:
    late.set(images=2, steps=2)
    late.seed.fill("5")
    late.page.route("**/5.png", lambda route: route.fulfill(status=404))
    late.page.route("**/6.png", lambda route: route.abort(), times=1)
    late.draw_button.click()
    expect(late.pictures.nth(1)).to_have_attribute("src", FILE, timeout=SLOW)
    expect(late.pictures.nth(0)).to_have_attribute("src", PREVIEW)
    expect(late.downloads).to_have_text(["Download 2"])
    expect(late.notes).to_contain_text(DELETED)


def test_a_file_that_is_gone_before_its_drawings_end_gives_way_to_its_preview_with_the_end(
    late: Studio, steps: Steps
) -> None:
    late.set(images=2, steps=2)
    late.seed.fill("5")
    late.page.route("**/5.png", lambda route: route.fulfill(status=404))
    steps.hold(3)  # the first step of the second picture
    late.draw_button.click()
    late.wait_for("running")
    late.allow(
        "aborted without reason|Connection errored out",
        reason="the page is left while it hears of the drawing",
    )
    late.page.reload()  # the page has seen no preview of the first one then
    expect(late.pictures.nth(1)).to_have_attribute("src", PREVIEW)
    steps.go_on()
    expect(late.pictures.nth(1)).to_have_attribute("src", FILE)
    expect(late.pictures.nth(0)).to_have_attribute("src", PREVIEW)
