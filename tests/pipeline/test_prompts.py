"""A prompt that is longer than what the model reads gets a warning that quotes the words that were cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPTokenizer, T5Tokenizer

from pipeline.engine import Engine
from tests.tiny import SKETCH, catalogue, draw, entry, tiny_z_image

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
