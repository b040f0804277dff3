"""This visit's pictures: kept in the tab, used again with one click."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.ui.studio import Studio


@pytest.mark.sketch
def test_a_click_on_a_picture_uses_it_again_and_drawing_it_gives_the_same_picture(tab: Studio) -> None:
    tab.make_quick()
    tab.set(guidance=2)
    tab.seed.fill("11")
    tab.draw("a red apple")
    first = tab.shown()
    tab.seed.fill("12")
    tab.set(width=256, steps=4)
    tab.draw("a rocket on a purple background")
    expect(tab.history).to_have_count(2)
    tab.history.nth(1).click()
    expect(tab.prompt).to_have_value("a red apple")
    expect(tab.seed).to_have_value("11")
    expect(tab.number("Width")).to_have_value("128")
    expect(tab.number("Steps")).to_have_value("6")
    expect(tab.number("Guidance")).to_have_value("2")
    expect(tab.pictures.first).to_have_attribute("alt", "a red apple")
    tab.draw()
    expect(tab.history).to_have_count(3)
    assert tab.shown().tobytes() == first.tobytes()


def test_the_pictures_survive_a_reload_and_show_their_preview_once_the_server_deleted_the_file(
    tab: Studio,
) -> None:
    tab.make_quick()
    tab.draw("a red apple")
    tab.open()
    expect(tab.history).to_have_count(1)
    tab.history.click()
    expect(tab.prompt).to_have_value("a red apple")
    expect(tab.pictures.first).to_have_attribute("src", re.compile("file="))
    expect(tab.downloads).to_have_text("Download")

    tab.allow("Failed to load resource", reason="the test's server deleted the picture")
    tab.open()
    tab.page.route("**/file=**", lambda route: route.fulfill(status=404))
    tab.history.click()
    expect(tab.pictures.first).to_have_attribute("src", re.compile("^data:image/jpeg"))
    expect(tab.notes).to_contain_text("The server has deleted this picture's file")
    expect(tab.downloads).to_have_count(0)


def test_a_full_storage_keeps_the_newest_pictures(tab: Studio) -> None:
    tab.page.evaluate(
        """() => {  // leaves 20 KB of the tab's storage
          let free = 0;
          for (let size = 2 ** 23; size >= 1024; size /= 2)
            try { sessionStorage.setItem("filler", "x".repeat(free + size)); free += size; } catch {}
          sessionStorage.setItem("filler", "x".repeat(free - 20_000));
        }"""
    )
    tab.make_quick()
    for seed in range(4):
        tab.seed.fill(str(seed))
        tab.draw("a red apple")
        expect(tab.history.first).to_have_attribute("title", f"a red apple (seed {seed})")
    kept = tab.history.count()
    tab.open()
    expect(tab.history).to_have_count(kept)
    assert 1 <= kept <= 4
    expect(tab.history.first).to_have_attribute("title", "a red apple (seed 3)")
