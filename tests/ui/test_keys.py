"""Escape closes what is open, and stops the drawing only where nothing is."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.support.steps import Steps
from tests.ui.studio import Studio


@pytest.fixture
def drawing(tab: Studio, steps: Steps) -> Studio:
    """A drawing that surely lasts, open settings."""
    tab.make_quick()
    steps.hold(1)
    tab.draw_button.click()
    tab.wait_for_step(1)
    return tab


def still(tab: Studio) -> None:
    """It goes on: no stop was asked for."""
    assert not tab.page.evaluate("window.stepwise.visit.drawing.stop")
    expect(tab.stop_button).to_be_visible()
    expect(tab.line).not_to_contain_text("Stopping")


def stops(tab: Studio) -> None:
    tab.page.keyboard.press("Escape")
    tab.wait_for("stopped")


def test_escape_in_an_open_list_of_models_closes_it_and_the_next_one_stops(drawing: Studio) -> None:
    drawing.page.get_by_role("combobox", name="Model").click()
    listed = drawing.page.get_by_role("option").first
    expect(listed).to_be_visible()
    drawing.page.keyboard.press("Escape")
    expect(listed).to_be_hidden()
    still(drawing)
    stops(drawing)


def test_escape_with_a_panel_open_closes_it_and_the_next_one_stops(drawing: Studio) -> None:
    drawing.allow("Failed to load resource: .* 404", reason="Gradio 6.31 asks for an MCP schema")
    for button, shown in (("Use via API", "/generate"), ("Settings", "Display Theme")):
        drawing.page.locator("footer").get_by_role("button", name=button).click()
        words = drawing.page.get_by_text(shown).first
        expect(words).to_be_visible()
        drawing.page.keyboard.press("Escape")
        expect(words).to_be_hidden()
        still(drawing)
    stops(drawing)


def test_escape_in_a_settings_field_leaves_it_and_the_next_one_stops(drawing: Studio) -> None:
    drawing.open_settings()
    for field in (drawing.seed, drawing.number("Steps"), drawing.page.get_by_label("Negative prompt")):
        field.click()
        drawing.page.keyboard.press("Escape")
        expect(field).not_to_be_focused()
        still(drawing)
    stops(drawing)


def test_escape_that_ends_a_words_composition_or_that_another_part_took_does_not_stop(
    drawing: Studio,
) -> None:
    drawing.prompt.focus()
    drawing.page.evaluate(
        """() => {
          const field = document.querySelector("#prompt textarea");
          const press = (more) => field.dispatchEvent(new KeyboardEvent("keydown", {
            key: "Escape", bubbles: true, cancelable: true, ...more }));
          press({ isComposing: true });
          field.addEventListener("keydown", (event) => event.preventDefault(), { once: true });
          press({});
        }"""
    )
    still(drawing)
    stops(drawing)


def test_escape_with_a_dialog_over_the_page_does_not_stop(drawing: Studio) -> None:
    for html in (
        "<dialog open>A box</dialog>",
        "<div role=dialog aria-modal=true>A picture</div>",
        "<div popover=manual id=pop>A menu</div>",
    ):
        drawing.page.evaluate(
            """(html) => {
              document.body.insertAdjacentHTML("beforeend", html);
              document.querySelector("#pop")?.showPopover();
            }""",
            html,
        )
        drawing.page.keyboard.press("Escape")
        still(drawing)
        drawing.page.evaluate("document.body.lastElementChild.remove()")
    stops(drawing)
