"""A prompt that is longer than what the model reads gets a warning that quotes the words that were cut, and
one with another program's syntax a warning that it is read as words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTokenizer, T5Tokenizer

from pipeline.engine import Engine
from tests.support.tiny import SKETCH, SMALL, catalogue, draw, entry, tiny_z_image

CLIP = CLIPTokenizer.from_pretrained(SKETCH / "tokenizer")
T5 = T5Tokenizer.from_pretrained(SKETCH / "tokenizer_3")
LONG = " ".join(f"a {color} {thing}," for color in ("red", "blue", "green", "yellow") for thing in (
    "apple", "rocket", "penguin", "fox", "house", "umbrella"))  # fmt: skip
LONGER = f"{LONG} {LONG} and a very last word"


def unread(prompt: str, tokenizer: Any, length: int) -> str:
    """What `tokenizer` doesn't read, counted another way: the longest run of whole words that fits."""
    words = prompt.split()
    read = max(n for n in range(len(words) + 1) if len(tokenizer(" ".join(words[:n])).input_ids) <= length)
    return " ".join(words[read:])


def tiny_tokens(folder: Path, tmp_path: Path, tokens: int) -> Engine:
    limits = entry(folder)["limits"] | {"tokens": [1, tokens]}
    return Engine(catalogue(tmp_path, entry(folder, limits=limits)))


TINY = {"model": "tiny", "width": 64, "height": 64, "steps": 1}


def test_a_prompt_that_fits_has_no_warning(engine: Engine) -> None:
    assert draw(engine, prompt="a red apple on a blue background", steps=1).warnings == ()


def test_words_that_no_encoder_reads_are_quoted(tiny_folder: Path, tmp_path: Path) -> None:
    event = draw(tiny_tokens(tiny_folder, tmp_path, 40), **TINY, prompt=LONGER)
    cut = unread(LONGER, T5, 40)
    assert cut.endswith("and a very last word")
    (warning,) = event.warnings
    start = warning.removeprefix("The prompt is too long for this model. Not read: “").removesuffix("”")
    assert len(start) > 100
    assert cut.startswith(start.removesuffix("…"))


def test_words_that_only_t5_reads_are_quoted(tiny_folder: Path, tmp_path: Path) -> None:
    cut = unread(LONG, CLIP, CLIP.model_max_length)
    assert 0 < len(T5(LONG).input_ids) <= 512
    short = LONG[: len(LONG) - len(cut) + 30].rsplit(" ", 1)[0]
    event = draw(tiny_tokens(tiny_folder, tmp_path, 512), **TINY, prompt=short)
    cut = unread(short, CLIP, CLIP.model_max_length)
    assert cut
    assert event.warnings == (f"The prompt is too long for CLIP; only T5 reads its end: “{cut}”",)


def test_a_negative_prompt_is_warned_about_by_its_name(tiny_folder: Path, tmp_path: Path) -> None:
    engine = tiny_tokens(tiny_folder, tmp_path, 40)
    event = draw(engine, **TINY, prompt="a fox", negative_prompt=LONGER, guidance=2)
    (warning,) = event.warnings
    assert warning.startswith("The negative prompt is too long for this model. Not read: “")


def test_a_negative_prompt_that_is_ignored_says_that_and_nothing_about_its_length(
    tiny_folder: Path, tmp_path: Path
) -> None:
    engine = tiny_tokens(tiny_folder, tmp_path, 40)
    event = draw(engine, **TINY, prompt="a fox", negative_prompt=LONGER, guidance=1)
    assert event.warnings == ("The negative prompt does nothing at guidance 1: Tiny reads it above 1.",)


def test_a_short_prompt_beside_a_long_one_has_no_warning(tiny_folder: Path, tmp_path: Path) -> None:
    event = draw(
        tiny_tokens(tiny_folder, tmp_path, 40), **TINY, prompt=LONGER, negative_prompt="blue", guidance=2
    )
    assert len(event.warnings) == 1


def test_the_last_word_is_cut_at_exactly_one_token_too_many(tiny_folder: Path, tmp_path: Path) -> None:
    words = "a red apple on a blue background and a fox in a green hat on a yellow house"
    exact = len(T5(words).input_ids)
    fits = draw(tiny_tokens(tiny_folder, tmp_path, exact), **TINY, prompt=words)
    assert not [warning for warning in fits.warnings if "Not read" in warning]
    cut = draw(tiny_tokens(tiny_folder, tmp_path, exact - 1), **TINY, prompt=words)
    assert cut.warnings == ("The prompt is too long for this model. Not read: “house”",)


@pytest.mark.parametrize("prompt", ["🍎 " * 60, "äöü ñ 漢字 " * 20, "x" * 300, "word\n\n" * 60])
def test_prompts_of_any_script_are_cut_with_their_own_words(engine: Engine, prompt: str) -> None:
    event = draw(engine, prompt=prompt, steps=1)
    assert event.phase == "finished"
    for warning in event.warnings:
        quoted = warning.split("“", 1)[1].removesuffix("”").removesuffix("…")
        assert quoted in prompt


def test_a_chat_template_counts_as_read_words(tmp_path: Path) -> None:
    source = tiny_z_image(tmp_path / "z")
    limits = entry(source)["limits"] | {"tokens": [1, 64]}
    engine = Engine(catalogue(tmp_path, entry(source, family="z-image", preview="flux", limits=limits)))
    fits = draw(engine, **TINY, prompt="a fox in a hat")
    assert fits.warnings == ()
    words = "a fox in a green hat " * 6
    (warning,) = draw(engine, **TINY, prompt=words).warnings
    # The template opens with <|im_start|> and "user\n": 6 tokens of one byte each; then one per letter.
    read = 64 - 6
    cut = words[words.rindex(" ", 0, read + 1) :].strip()
    assert warning == f"The prompt is too long for this model. Not read: “{cut}”"


SYNTAX = {
    "a (red:1.3) apple": ["(red:1.3)"],
    "(a red apple, (shiny), on grass : 0.8)": ["(a red apple, (shiny), on grass : 0.8)"],
    "(score_9:2), ((masterpiece))": ["(score_9:2)", "((masterpiece))"],
    "a fox <lora:ink-v2:0.7>, <hypernet:x:1>": ["<lora:ink-v2:0.7>", "<hypernet:x:1>"],
    "embedding:easy-negative, a fox": ["embedding:easy-negative"],
    "a fox BREAK a blue sky": ["BREAK"],
    "a fox\nBREAK\na blue sky, BREAK, a hen": ["BREAK"],
    "a __colours/warm__ fox": ["__colours/warm__"],
    "a {red|blue|pale green} fox": ["{red|blue|pale green}"],
    "a [cat:dog:0.5] and a [hen|cock]": ["[cat:dog:0.5]", "[hen|cock]"],
}


@pytest.mark.parametrize("prompt", SYNTAX)
def test_syntax_that_other_programs_read_is_said_to_be_read_as_words(engine: Engine, prompt: str) -> None:
    quoted = ", ".join(f"“{one}”" for one in SYNTAX[prompt])
    (warning,) = engine.check(SMALL | {"prompt": prompt}).warnings
    assert warning == f"Read as plain words in the prompt, for that syntax means nothing here: {quoted}."


def test_syntax_in_a_negative_prompt_is_said_where_that_is_read(engine: Engine) -> None:
    values = SMALL | {"negative_prompt": "(ugly:1.4)"}
    (warning,) = engine.check(values).warnings
    assert warning.startswith("Read as plain words in the negative prompt")
    (warning,) = engine.check(values | {"guidance": 1}).warnings
    assert "does nothing" in warning


def test_of_much_syntax_only_some_is_quoted(engine: Engine) -> None:
    prompt = ", ".join(f"(word{letter}:1.1)" for letter in "abcde")
    (warning,) = engine.check(SMALL | {"prompt": prompt}).warnings
    assert warning.endswith("“(worda:1.1)”, “(wordb:1.1)”, “(wordc:1.1)” and 2 more.")


@pytest.mark.parametrize(
    "prompt",
    [
        "a fox (at 10:30), seen from (the) left",
        "a poster for John (3:16), 16:9, (ratio 16:9), (2.39:1), 1:1.5",
        "a clock that shows (12:05) (see below: the hands)",
        "film grain (ISO:400), f/1.8 (50 mm)",
        'a sign that says "(red:1.3) BREAK {a|b}"',
        "a sign that says “<lora:x:1> __colours__”",
        "a red sign: COFFEE BREAK",
        "a box with BREAK GLASS on it",
        "a lunch break on the beach, a break of dawn",
        "a form with blanks: ____ and __",
        "a < b, b > c; a face :) and ((:",
        "{a} set [of] things, 3 | 4",
        "a fox, [sic], embedding a jewel: gold",
        "snake_case and dunder__names",
    ],
)
def test_ordinary_prose_with_brackets_has_no_warning(engine: Engine, prompt: str) -> None:
    assert engine.check(SMALL | {"prompt": prompt}).warnings == ()
