"""A model that a provider draws, on the page: no previews come; the frame says so and doesn't look broken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.support.services.provider import Answer, Far
from tests.ui.conftest import PHONE
from tests.ui.studio import Studio


@pytest.fixture
def server(far: Far) -> str:
    """What the page's fixtures open here."""
    return far.url


def animation(tab: Studio) -> str:
    """Of the bar under the picture."""
    bar = "document.querySelector('#live [role=progressbar] i')"
    return tab.page.evaluate(f"getComputedStyle({bar}).animationName")


def test_while_a_provider_draws_the_page_says_so_and_shows_that_it_waits(far: Far, tab: Studio) -> None:
    gate = far.provider.hold()
    about = tab.page.locator("#about")
    expect(about).to_contain_text("the Inference Provider hf-inference, which is sent the prompt")
    tab.draw_button.click()
    gate.wait()
    tab.wait_for("running")
    expect(tab.line).to_have_text(re.compile(r"^Drawing at hf-inference · no previews · seed \d+$"))
    expect(tab.notes).to_contain_text("No previews")
    bar = tab.page.get_by_role("progressbar")
    expect(bar).to_be_visible()
    assert bar.get_attribute("aria-valuenow") is None  # nobody knows how far it is
    assert animation(tab) == "passing"
    found = Axe().run(tab.page).response["violations"]
    assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")]
    gate.open()
    tab.wait_for("finished")
    expect(tab.line).to_contain_text("64 × 48")
    expect(tab.downloads).to_have_count(1)
    assert tab.shown().size == (64, 48)
    expect(tab.history).to_have_count(1)


def test_who_wants_less_motion_sees_a_still_bar(far: Far, open_tab: Callable[..., Studio]) -> None:
    tab = open_tab(reduced_motion="reduce", viewport=PHONE)
    gate = far.provider.hold()
    tab.draw_button.click()
    gate.wait()
    tab.wait_for("running")
    assert animation(tab) == "none"
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    gate.open()
    tab.wait_for("finished")


def test_stop_is_answered_at_once_and_the_next_one_draws(far: Far, tab: Studio) -> None:
    far.provider.hang()
    tab.draw_button.click()
    assert far.provider.reached.wait(60)
    tab.stop_button.click()
    tab.wait_for("stopped")
    expect(tab.line).to_have_text(re.compile(r"^Stopped · seed \d+$"))
    assert far.provider.gone.wait(60)
    far.provider.reset()
    tab.draw()


def test_a_refusal_is_shown_with_its_link(far: Far, tab: Studio) -> None:
    far.provider.answer = lambda asked: Answer(json.dumps({"error": "no more"}).encode(), 402)
    tab.draw_button.click()
    tab.wait_for("failed")
    expect(tab.notes).to_contain_text("no credits left")
    link = tab.notes.get_by_role("link", name="huggingface.co/settings/billing")
    expect(link).to_have_attribute("href", re.compile(r"^https://huggingface\.co/settings/billing$"))
