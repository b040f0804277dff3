"""The training scripts: the whole of them in a smoke run, and what their data promises."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from training import captions, sprites
from training.__main__ import main
from training.render import render
from training.spelling import letters_by_column
from training.text import make_t5_tokenizer


def train(monkeypatch: pytest.MonkeyPatch, *options: str | Path) -> None:
    """As `python -m training --smoke`, in this process: importing torch anew takes longer than the run."""
    monkeypatch.setattr(sys, "argv", ["training", "--smoke", *map(str, options)])
    main()


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training") / "sketch"
    with pytest.MonkeyPatch.context() as patch:
        train(patch, "--out", out)
    return out


def test_the_smoke_run_saves_a_pipeline_that_diffusers_loads_and_draws_with(
    smoke_run: Path,
) -> None:
    pipe = StableDiffusion3Pipeline.from_pretrained(smoke_run, dtype=torch.float32)
    picture = pipe("a cat", num_inference_steps=2, height=128, width=192, max_sequence_length=32).images[0]
    assert picture.size == (192, 128)


def test_every_saved_file_is_below_ten_megabytes_and_all_together_below_24(smoke_run: Path) -> None:
    sizes = [path.stat().st_size for path in smoke_run.rglob("*.safetensors")]
    assert max(sizes) < 10e6
    assert sum(sizes) <= 24e6


def test_preview_factors_map_sixteen_latent_channels_to_rgb(smoke_run: Path) -> None:
    preview = json.loads((smoke_run / "preview.json").read_text())
    assert [len(row) for row in preview["factors"]] == [3] * 16
    assert len(preview["bias"]) == 3


def test_a_run_cut_short_goes_on_from_what_it_saved(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(monkeypatch, "--out", tmp_path, "--resume", smoke_run)
    for kept in ("vae/diffusion_pytorch_model.safetensors", "text_encoder_3/model.safetensors"):
        assert (tmp_path / kept).read_bytes() == (smoke_run / kept).read_bytes()


def test_a_vae_trained_before_is_taken_as_it_is(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(monkeypatch, "--out", tmp_path, "--vae", smoke_run / "vae")
    weights = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "vae" / weights).read_bytes() == (smoke_run / "vae" / weights).read_bytes()


def test_the_sprites_are_those_of_the_object_list() -> None:
    assert sprites.load().names == [names for _, names in sprites.read_objects()]


def test_the_vocabulary_is_at_most_300_short_words() -> None:
    words = sprites.read_words()
    assert len(set(words)) == len(words) <= 300
    assert all(word.isalpha() and word.isupper() and len(word) <= captions.LONGEST_WORD for word in words)


def test_t5_reads_quoted_words_letter_by_letter_and_others_whole() -> None:
    tokenizer = make_t5_tokenizer(['a sign that says "FOX"', 'a fox and a sign that says "NO"'], 32)
    assert tokenizer.tokenize('a sign that says "HI"')[-4:] == ['▁"', "H", "I", '"']


@pytest.mark.parametrize(
    "caption, misread",
    [
        ('a bear with the word "BEAR"', 'a bear with the word "SUN"'),
        ('Red text "red", detailed', 'Red text "sun", detailed'),
        ("the word ''Red'' in red.", "the word ''Sun'' in red."),
        ("A bear saying “BEAR” on red", "A bear saying “SUN” on red"),
        ("‘bear’ on a red background", "‘sun’ on a red background"),
        ("a bear with the text BEAR", "a bear with the text SUN"),
        ("bad, ugly", "bad, ugly"),
    ],
)
def test_the_clips_read_another_word_in_the_same_letters_and_quotes(caption: str, misread: str) -> None:
    word = "RED" if "red" in caption.lower().split(" on ")[0] else "BEAR"
    assert captions.misquoted(caption, word, "SUN") == misread


def test_the_captions_of_clip_and_t5_differ_in_the_word_alone_and_t5s_has_the_drawn_one() -> None:
    names, words, rng = sprites.load().names, sprites.read_words(), random.Random(5)
    pairs = [captions.sample_scene(names, words, rng) for _ in range(4000)]
    for scene, caption in pairs:
        misread = captions.misquoted(caption, scene.word, "QQQQ")
        if not scene.shows_word or caption.split(", ")[0] in captions.EMPTY_WORDS:
            assert misread == caption
            continue
        before, after = re.split("qqqq", misread, flags=re.IGNORECASE)
        assert caption.startswith(before) and caption.endswith(after)
        assert caption[len(before) : len(caption) - len(after)].upper() == scene.word


def test_t5_learns_which_letter_stands_in_which_column_of_the_picture() -> None:
    columns = letters_by_column(captions.Scene("sign", word="CAT"))
    assert "".join(" ABCDEFGHIJKLMNOPQRSTUVWXYZ"[letter] for letter in columns) == "   CCCAAAATTT   "


@pytest.mark.parametrize("width, height", [(256, 256), (128, 256), (512, 256)])
def test_a_scene_has_the_background_it_names_at_every_aspect(width: int, height: int) -> None:
    blue = captions.Scene("one", first=0, background=captions.COLOUR_NAMES.index("blue"))
    plain = captions.Scene("sign", word="HELLO")
    pictures = render([blue, plain], sprites.load().first(3), width, height, torch.Generator())
    corners = ((pictures[:, :, 0, 0] + 1) * 127.5).round().int().tolist()
    assert corners == [list(captions.COLOURS["blue"]), list(captions.PAPER)]


def test_the_same_seed_gives_the_same_scenes_and_captions() -> None:
    names, words = sprites.load().names, sprites.read_words()
    first, second = (
        [captions.sample_scene(names, words, rng) for _ in range(50)]
        for rng in (random.Random(4), random.Random(4))
    )
    assert first == second
