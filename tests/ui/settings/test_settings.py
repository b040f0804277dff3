"""The settings on the page: what each model changes, presets, and how a mistake is answered."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.ui.studio import Studio


def test_switching_to_turbo_shows_its_settings_and_why_it_cannot_run_and_back_restores(tab: Studio) -> None:
    tab.open_settings()
    negative = tab.page.get_by_label("Negative prompt")
    about = tab.page.locator("#about")
    expect(negative).to_be_visible()
    tab.choose_model("Large Turbo")
    expect(tab.number("Steps")).to_have_value("4")
    expect(tab.number("Guidance")).to_have_value("0")
    expect(tab.number("Width")).to_have_value("1024")
    expect(negative).to_be_hidden()
    expect(about).to_contain_text("Can’t run here")
    expect(about).to_contain_text("Needs a GPU: 31 GB of its memory are best, 5 GB the least; this machine")
    expect(about).to_contain_text("HF_TOKEN")
    expect(about).to_contain_text("Powered by Stability AI")
    expect(about.get_by_role("link", name="Acceptable use")).to_be_visible()
    tab.draw_button.click()
    expect(tab.notes).to_contain_text("Stable Diffusion 3.5 Large Turbo can't run here.")
    tab.choose_model("Sketch")
    expect(tab.number("Steps")).to_have_value("28")
    expect(tab.number("Guidance")).to_have_value("3.5")
    expect(tab.number("Width")).to_have_value("256")
    expect(negative).to_be_visible()
    expect(about).not_to_contain_text("Can’t run here")
    tab.make_quick()
    tab.draw()


def test_an_aspect_preset_sets_the_size(shared_tab: Studio) -> None:
    shared_tab.open_settings()
    for aspect, width, height in [("16:9", "336", "192"), ("2:3", "208", "320"), ("1:1", "256", "256")]:
        shared_tab.page.get_by_role("radio", name=aspect).check()
        expect(shared_tab.number("Width")).to_have_value(width)
        expect(shared_tab.number("Height")).to_have_value(height)


def test_a_model_that_draws_larger_has_presets_for_that_too(shared_tab: Studio) -> None:
    shared_tab.open_settings()
    for name, sizes in {
        "3.5 Medium": [("1440²", 1440, 1440), ("16:9", 1904, 1088), ("1024²", 1360, 768)],
        "Sketch": [("512²", 512, 512), ("9:16", 288, 512), ("256²", 192, 336)],
    }.items():
        shared_tab.choose_model(name)
        for preset, width, height in sizes:
            shared_tab.page.get_by_role("radio", name=preset).check()
            expect(shared_tab.number("Width")).to_have_value(str(width))
            expect(shared_tab.number("Height")).to_have_value(str(height))
    shared_tab.choose_model("3.5 Large Turbo")
    expect(shared_tab.page.locator("#area")).to_be_hidden()


def test_a_size_of_ones_own_chooses_no_preset_and_a_preset_gives_one_again(shared_tab: Studio) -> None:
    shared_tab.choose_model("Sketch")
    shared_tab.set(width=320)
    expect(shared_tab.page.locator("#aspect input:checked, #area input:checked")).to_have_count(0)
    shared_tab.page.get_by_role("radio", name="512²").check()
    expect(shared_tab.page.get_by_role("radio", name="1:1")).to_be_checked()
    expect(shared_tab.number("Width")).to_have_value("512")


def test_using_a_picture_again_chooses_its_preset(tab: Studio) -> None:
    tab.set(steps=2)
    tab.page.get_by_role("radio", name="512²").check()
    tab.page.get_by_role("radio", name="16:9").check()
    tab.draw()
    tab.page.get_by_role("radio", name="256²").check()
    tab.history.first.click()
    expect(tab.page.get_by_role("radio", name="512²")).to_be_checked()
    expect(tab.page.get_by_role("radio", name="16:9")).to_be_checked()
    expect(tab.number("Height")).to_have_value("288")


def test_z_image_reads_a_negative_prompt_at_any_guidance_above_zero_and_turbo_above_one(
    shared_tab: Studio,
) -> None:
    shared_tab.open_settings()
    negative = shared_tab.page.get_by_label("Negative prompt")
    for name, shown in {
        "Z-Image": {0: False, 0.5: True},
        "Large Turbo": {0: False, 1: False, 1.5: True},
    }.items():
        shared_tab.choose_model(name)
        expect(negative).to_be_hidden()
        for guidance, visible in shown.items():
            shared_tab.set(guidance=guidance)
            expect(negative).to_be_visible(visible=visible)


def test_the_dice_roll_a_seed(shared_tab: Studio) -> None:
    shared_tab.open_settings()
    dice = shared_tab.page.get_by_role("button", name="Roll")
    dice.click()
    expect(shared_tab.seed).not_to_have_value("")
    first = shared_tab.seed.input_value()
    dice.click()
    expect(shared_tab.seed).not_to_have_value(first)
    assert 0 <= int(shared_tab.seed.input_value()) < 2**32


def test_one_click_on_an_example_fills_the_prompt(shared_tab: Studio) -> None:
    shared_tab.page.get_by_role("button", name="a rocket to the left of a tulip").click()
    expect(shared_tab.prompt).to_have_value("a rocket to the left of a tulip")


def test_a_negative_prompt_that_is_hidden_is_not_sent(tab: Studio) -> None:
    tab.make_quick()
    tab.page.get_by_label("Negative prompt").fill("green")
    tab.draw()
    assert tab.recipe()["negative_prompt"] == "green"
    tab.set(guidance=1)
    expect(tab.page.get_by_label("Negative prompt")).to_be_hidden()
    tab.draw()
    expect(tab.history).to_have_count(2)
    assert tab.recipe()["negative_prompt"] == ""
    expect(tab.notes).to_be_empty()


def test_mistakes_are_answered_in_words(tab: Studio) -> None:
    tab.prompt.fill("   ")
    tab.draw_button.click()
    expect(tab.notes).to_have_text("prompt is empty: write what to draw.")
    expect(tab.page.locator("#live").get_by_role("status")).to_have_text(
        "prompt is empty: write what to draw."
    )
    expect(tab.draw_button).to_be_visible()
    tab.prompt.fill("a red apple")
    tab.open_settings()
    tab.seed.fill("x")
    tab.draw_button.click()
    expect(tab.notes).to_have_text('seed must be a whole number; got "x".')
    tab.seed.fill("")
    tab.make_quick()
    tab.draw()
    expect(tab.notes).to_be_empty()


@pytest.mark.sketch
def test_a_prompt_too_long_for_the_model_is_drawn_with_a_warning_that_quotes_what_was_cut(
    tab: Studio,
) -> None:
    tab.make_quick()
    tab.draw("a red apple " + "and a very long story about it " * 30 + "with a green caterpillar")
    expect(tab.notes.locator(".warning")).to_contain_text("Not read: “")
