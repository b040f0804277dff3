"""Whatever stands in a field of the page, the answer is words at that field, and they are true."""

from __future__ import annotations

import json
from collections.abc import Callable

from playwright.sync_api import expect

from tests.ui.conftest import PHONE
from tests.ui.studio import Studio

RESOURCE = "Failed to load resource"
UNTRUE = "takes no more drawings"
SEEDS = {
    "two dashes": ("--5", 'seed must be a whole number; got "--5".'),
    "5,000 digits": ("9" * 5000, "seed must be from 0 to 9007199254740991 (2⁵³ − 1), or -1 for a"),
    "minus 5,000 digits": ("-" + "9" * 5000, "seed must be from 0 to 9007199254740991"),
    "an exponent past the largest float": ("1e400", 'seed must be a whole number; got "1e400".'),
    "hexadecimal": ("0x10", 'seed must be a whole number; got "0x10".'),
    "NaN": ("NaN", 'seed must be a whole number; got "NaN".'),
    "a half": ("1.5", 'seed must be a whole number; got "1.5".'),
    "a superscript": ("²", 'seed must be a whole number; got "²".'),
    "a dash": ("-", 'seed must be a whole number; got "-".'),
    "minus two": ("-2", "seed must be from 0 to 9007199254740991"),
    "past the largest": ("9007199254740992", "seed must be from 0 to 9007199254740991"),
    "a lone surrogate": ("\ud800", "seed must be a whole number; got"),
    "an emoji": ("🎲", 'seed must be a whole number; got "🎲".'),
}  # fmt: skip
PROMPTS = {
    "nothing": ("", "prompt is empty: write what to draw."),
    "spaces": ("  \n ", "prompt is empty: write what to draw."),
    "10,001 characters": ("x" * 10_001, "prompt may be at most 10,000 characters long; got 10,001."),
    "a lone surrogate": ("a \ud800", "prompt contains the character U+D800 at position 2, which is not text"),
    "a NUL": ("a\x00", "prompt contains the character U+0000 at position 1, which is not text"),
}
NUMBERS = [
    ("Steps", "400", "steps must be from 1 to 60 for Sketch; got 400."),
    ("Steps", "-3", "steps must be from 1 to 60 for Sketch; got -3."),
    ("Steps", "2.5", "steps must be a whole number; got 2.5."),
    ("Width", "1e9", "width must be from 128 to 512 for Sketch; got 1000000000."),
    ("Guidance", "1e300", "guidance must be a number of ordinary size"),
    ("Images", "0", "images must be from 1 to 4 for Sketch; got 0."),
]
FAILED = [
    (503, "Queue is full.", "The server takes no more drawings now."),
    (500, "Internal Server Error", "The server didn't take this drawing (500: Internal Server Error)."),
    (413, "The request's body is longer than 1,048,576 bytes.", "1,048,576 bytes"),
    (404, "Not Found", "(404: Not Found)"),
]
"""Answers to a call: their status, their detail, and what the page makes of them."""


def type_in(tab: Studio, selector: str, text: str) -> None:
    """What no keyboard can write, too."""
    tab.page.evaluate(
        """([selector, text]) => {
          const field = document.querySelector(selector);
          field.value = JSON.parse(text);
          field.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        [selector, json.dumps(text)],
    )


def refused(tab: Studio, words: str) -> None:
    tab.draw_button.click()
    expect(tab.notes).to_contain_text(words)
    expect(tab.draw_button).to_be_visible()
    expect(tab.notes).not_to_contain_text(UNTRUE)
    assert not [trouble for trouble in tab.troubles if "Traceback" in trouble]


def test_any_seed_that_is_none_is_answered_in_words_at_its_field(tab: Studio) -> None:
    tab.open_settings()
    for text, words in SEEDS.values():
        type_in(tab, "#seed textarea, #seed input", text)
        refused(tab, words)
        expect(tab.page.locator("#seed .problem")).to_contain_text(words)
        expect(tab.seed).to_have_attribute("aria-invalid", "true")
        expect(tab.seed).to_be_focused()
    tab.seed.fill("5")
    expect(tab.page.locator(".problem")).to_have_count(0)
    expect(tab.seed).not_to_have_attribute("aria-invalid", "true")


def test_a_seed_that_is_a_number_however_it_is_written_is_drawn(tab: Studio) -> None:
    tab.make_quick()
    tab.set(steps=1)
    for typed, seed in ((" 7 ", 7), ("８", 8), ("009", 9)):
        tab.seed.fill(typed)
        tab.draw()
        assert tab.recipe()["seed"] == seed


def test_any_prompt_that_is_none_is_answered_in_words_at_its_field(tab: Studio) -> None:
    for text, words in PROMPTS.values():
        type_in(tab, "#prompt textarea", text)
        refused(tab, words)
        expect(tab.page.locator("#ask + .problem")).to_contain_text(words)
        expect(tab.page.locator("#ask + .problem")).to_be_in_viewport()
        expect(tab.prompt).to_be_focused()
    tab.open_settings()
    type_in(tab, "#prompt textarea", "a fox")
    for text, words in list(PROMPTS.values())[2:]:
        type_in(tab, "#negative textarea", text)
        refused(tab, f"negative_{words}")
        expect(tab.page.locator("#negative .problem")).to_contain_text(f"negative_{words}")


def test_a_number_out_of_its_bounds_is_answered_at_its_field_or_brought_back_into_them(tab: Studio) -> None:
    tab.open_settings()
    for name, past, words in NUMBERS:
        field = tab.number(name)
        before = field.input_value()
        field.fill(past)
        tab.page.keyboard.press("Control+Enter")  # before the field is left, which brings it back
        expect(tab.notes).to_contain_text(words)
        expect(tab.page.locator(f"#{name.lower()} .problem")).to_contain_text(words)
        expect(field).to_be_focused()
        field.fill(before)
        expect(tab.page.locator(".problem")).to_have_count(0)


def test_a_number_that_was_cleared_is_the_models_own_again(tab: Studio) -> None:
    tab.make_quick()
    usual = {"Steps": "28", "Guidance": "3.5", "Images": "1"}
    for name in usual:
        tab.number(name).fill("")
        tab.number(name).blur()
    for name, value in usual.items():
        expect(tab.number(name)).to_have_value(value)
    tab.set(steps=2)
    tab.number("Guidance").fill("")
    tab.page.keyboard.press("Control+Enter")
    tab.wait_for("finished")
    assert tab.recipe()["guidance"] == 3.5
    expect(tab.number("Guidance")).to_have_value("3.5")


def test_the_same_mistake_twice_is_answered_twice(tab: Studio) -> None:
    tab.prompt.fill("")
    for _ in range(2):
        refused(tab, "prompt is empty")
        expect(tab.line).to_be_empty()


def test_a_mistake_in_a_folded_field_opens_the_fold(open_tab: Callable[..., Studio]) -> None:
    tab = open_tab(viewport=PHONE)
    tab.open_settings()
    tab.seed.fill("x")
    tab.close_settings()
    expect(tab.seed).to_be_hidden()
    refused(tab, 'seed must be a whole number; got "x".')
    expect(tab.page.locator("#seed .problem")).to_be_in_viewport()
    expect(tab.seed).to_be_focused()


def test_a_model_that_is_no_longer_there_is_answered_at_its_field(tab: Studio) -> None:
    def other(route: object) -> None:
        body = json.loads(route.request.post_data)  # type: ignore[attr-defined]
        body["data"] = ["gone" if value == "sketch" else value for value in body["data"]]
        route.continue_(post_data=json.dumps(body))  # type: ignore[attr-defined]

    tab.page.route("**/queue/join*", other)
    refused(tab, 'model "gone" is not known. Known models: ')
    expect(tab.page.locator("#model .problem")).to_contain_text('model "gone" is not known.')


def test_a_call_that_fails_is_told_as_it_failed(tab: Studio) -> None:
    tab.allow(RESOURCE, reason="the test's server refuses")
    answers: list[dict[str, object]] = []
    tab.page.route("**/queue/join*", lambda route: route.fulfill(**answers[-1]))
    for status, detail, words in FAILED:
        answers.append({"status": status, "json": {"detail": detail}})
        tab.draw_button.click()
        expect(tab.notes).to_contain_text(words)
        if status != 503:
            expect(tab.notes).not_to_contain_text(UNTRUE)
        expect(tab.draw_button).to_be_visible()


def test_a_stop_that_didnt_reach_the_server_is_sent_again(tab: Studio) -> None:
    tab.allow(RESOURCE, reason="the test loses the stop")
    tab.set(steps=60, width=512, height=512)
    tab.draw_button.click()
    tab.wait_for_step(2)
    tab.page.route("**/gradio_api/run/predict*", lambda route: route.fulfill(status=502), times=1)
    tab.page.route("**/gradio_api/api/predict*", lambda route: route.fulfill(status=502), times=1)
    tab.page.route("**/queue/join*", lambda route: route.fulfill(status=502), times=1)
    tab.stop_button.click()
    tab.wait_for("stopped")
    expect(tab.line).to_contain_text("at step")
