"""How the page looks and who can use it: phone, dark, keyboard, screen reader, reduced motion, API page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.support.steps import Steps
from tests.ui.conftest import PHONE
from tests.ui.studio import Studio


def findings(tab: Studio) -> list[str]:
    """What axe-core finds serious or critical, with the first place of each."""
    # Colours half-way through a transition are nobody's contrast.
    tab.page.evaluate(
        """() => Promise.allSettled(document.getAnimations()
          .filter((one) => one.effect.getComputedTiming().endTime < Infinity).map((one) => one.finished))"""
    )
    found: list[dict[str, Any]] = Axe().run(tab.page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_axe_finds_nothing_serious_idle_drawing_finished_refused_and_with_everything_open(
    tab: Studio, steps: Steps
) -> None:
    assert not findings(tab)
    tab.set(steps=60)
    steps.hold(2)
    tab.draw_button.click()
    tab.wait_for_step(2)
    assert not findings(tab)
    tab.stop_button.click()
    tab.wait_for("stopped")
    steps.go_on()
    tab.make_quick()
    tab.draw()
    tab.page.get_by_role("button", name="What the other models need").click()
    expect(tab.page.get_by_role("heading", name="Z-Image Turbo")).to_be_visible()
    assert not findings(tab)
    tab.choose_model("Large Turbo")
    tab.draw_button.click()
    expect(tab.notes).to_contain_text("can't run here")
    assert not findings(tab)


def test_dark_follows_the_visitors_system_and_axe_finds_nothing_serious_there(
    open_tab: Callable[..., Studio],
) -> None:
    colours = []
    for scheme in ("light", "dark"):
        tab = open_tab(color_scheme=scheme)
        colours.append(tab.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(250, 249, 247)", "rgb(19, 17, 16)"]
    assert not findings(tab)
    tab.make_quick()
    tab.page.get_by_role("button", name="What the other models need").click()
    tab.draw()
    assert not findings(tab)
    tab.choose_model("Large Turbo")
    expect(tab.page.locator("#about .missing")).to_have_css("background-color", "rgb(59, 13, 13)")
    tab.draw_button.click()
    expect(tab.notes).to_contain_text("can't run here")
    assert not findings(tab)


def test_a_phone_shows_one_column_in_order_without_sideways_scrolling(
    open_tab: Callable[..., Studio],
) -> None:
    tab = open_tab(viewport=PHONE, has_touch=True, is_mobile=True)
    width = "document.documentElement.scrollWidth"
    assert tab.page.evaluate(width) <= PHONE["width"]
    tab.make_quick()
    tab.draw()
    tab.page.get_by_role("button", name="What the other models need").click()
    tab.choose_model("Large Turbo")
    assert tab.page.evaluate(width) <= PHONE["width"]
    order = [
        tab.prompt, tab.draw_button, tab.frame, tab.line, tab.page.locator("#settings"), tab.history.first,
        tab.page.locator("#owner"),
    ]  # fmt: skip
    tops = [box["y"] for part in order if (box := part.bounding_box())]
    assert len(tops) == len(order) and tops == sorted(tops), tops
    assert not findings(tab)


def test_the_picture_and_its_status_line_need_no_scrolling_on_a_laptop(tab: Studio) -> None:
    tab.make_quick()
    tab.close_settings()
    tab.draw()
    for part in (tab.frame, tab.line, tab.downloads, tab.history):
        expect(part).to_be_in_viewport(ratio=1)


@pytest.mark.sketch
def test_the_keyboard_alone_draws_stops_and_uses_a_picture_again(tab: Studio, steps: Steps) -> None:
    keys = tab.page.keyboard
    steps.hold(2)

    def tab_to(role_and_name: str) -> None:
        for _ in range(40):
            keys.press("Tab")
            now = tab.page.evaluate(
                "(document.activeElement.ariaLabel ?? document.activeElement.innerText ?? '').trim()"
            )
            if now.startswith(role_and_name):
                return
        raise AssertionError(f"Tab doesn't reach {role_and_name}")

    tab_to("Draw")
    outline = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus can be seen"
    keys.press("Enter")
    tab.wait_for_step(2)
    keys.press("Escape")
    tab.wait_for("stopped")
    tab_to("Settings")
    keys.press("Enter")
    expect(tab.seed).to_be_visible()
    tab_to("Use again")
    keys.press("Enter")
    expect(tab.seed).not_to_have_value("")


def test_reduced_motion_is_honoured(open_tab: Callable[..., Studio], steps: Steps) -> None:
    tab = open_tab(reduced_motion="reduce")
    steps.hold(1)
    tab.draw_button.click()
    tab.wait_for_step(1)
    moving = """[...document.querySelectorAll("*")].filter((node) => {
      const { animationName, transitionDuration, transitionProperty } = getComputedStyle(node);
      return animationName !== "none" || (transitionProperty !== "none" && transitionDuration !== "0s");
    }).map((node) => node.outerHTML.slice(0, 120))"""
    assert tab.page.evaluate(moving) == []
    tab.stop_button.click()
    tab.wait_for("stopped")


def test_the_api_page_lists_the_endpoints_and_nothing_else(tab: Studio) -> None:
    tab.allow(
        "Failed to load resource: .* 404", reason="Gradio 6.31 asks for an MCP schema, which we don't serve"
    )
    tab.page.get_by_role("button", name="Use via API").click()
    tab.page.get_by_text("/generate").first.wait_for()
    listed = tab.page.evaluate("document.body.innerText.match(/(?<=^|\\s)\\/[a-z_]+(?=\\s|$)/gm)")
    assert set(listed) == {"/generate", "/job", "/jobs", "/models", "/stop"}


def test_the_tab_has_our_title_and_icon(tab: Studio) -> None:
    expect(tab.page).to_have_title("Stepwise")
    icon = tab.page.locator("link[rel=icon]").get_attribute("href")
    answer = tab.page.request.get(f"{tab.url}/{icon}")
    assert answer.ok and "svg" in answer.headers["content-type"] and b"<svg" in answer.body()


def test_a_fold_that_is_mounted_late_tells_whether_it_is_open_too(tab: Studio) -> None:
    """As Gradio mounts it on a busy machine: after the page's own script has run."""
    tab.page.evaluate(
        """() => {
          const mounted = document.querySelector(".gr-accordion > button"), late = mounted.cloneNode(true);
          late.removeAttribute("aria-expanded");
          late.onclick = () => late.classList.toggle("open");
          mounted.replaceWith(late);
        }"""
    )
    fold = tab.page.get_by_role("button", name="Settings ▼")
    expect(fold).to_have_attribute("aria-expanded", "false")
    fold.click()
    expect(fold).to_have_attribute("aria-expanded", "true")
