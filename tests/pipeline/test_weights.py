"""Weights that are damaged, missing, of another family, or that overflow end a job in words that say what to
mend; once mended, the next job draws without a restart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.engine import Engine
from pipeline.events import Event
from tests.tiny import SKETCH, catalogue, draw, entry, tiny_z_image

TINY = {"model": "tiny", "width": 64, "height": 64}


@pytest.fixture
def own(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "own"))


def engine_for(folder: Path, tmp_path: Path, **changes: Any) -> Engine:
    return Engine(catalogue(tmp_path, entry(folder, **changes)))


def weights_of(folder: Path, part: str) -> Path:
    (path,) = (folder / part).glob("*.safetensors")
    return path


def failed(event: Event, *words: str) -> None:
    assert (event.phase, event.images) == ("failed", ())
    assert event.error is not None
    for word in words:
        assert word in event.error
    assert "Traceback" not in event.error
    assert "/tmp" not in event.error  # where things lie is for the server's log
    assert event.info()["error"] == event.error


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"<html>not found</html>" * 9],
    ids=["truncated", "empty", "html"],
)
def test_a_damaged_weights_file_fails_in_words_and_works_after_repair(
    own: Path, tmp_path: Path, part: str, damage: Any
) -> None:
    engine = engine_for(own, tmp_path)
    file = weights_of(own, part)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    failed(draw(engine, **TINY), "Tiny", "damaged")
    file.write_bytes(whole)
    assert draw(engine, **TINY).phase == "finished"


@pytest.mark.parametrize("part", ["transformer", "vae", "tokenizer", "scheduler", "text_encoder_3"])
def test_a_missing_part_fails_in_words_and_works_after_repair(own: Path, tmp_path: Path, part: str) -> None:
    engine = engine_for(own, tmp_path)
    shutil.move(own / part, tmp_path / "away")
    failed(draw(engine, **TINY), "Tiny", part)
    shutil.move(tmp_path / "away", own / part)
    assert draw(engine, **TINY).phase == "finished"


def test_a_folder_that_is_no_pipeline_fails_in_words(own: Path, tmp_path: Path) -> None:
    engine = engine_for(own, tmp_path)
    (own / "model_index.json").unlink()
    failed(draw(engine, **TINY), "model_index.json", "models.yaml")


def test_a_model_index_that_is_not_json_fails_in_words(own: Path, tmp_path: Path) -> None:
    engine = engine_for(own, tmp_path)
    (own / "model_index.json").write_text("{oops")
    failed(draw(engine, **TINY), "model_index.json")


@pytest.mark.parametrize("family, is_a", [("sd3", "ZImagePipeline"), ("z-image", "StableDiffusion3Pipeline")])
def test_the_wrong_family_fails_with_both_names(
    tiny_folder: Path, tmp_path: Path, family: str, is_a: str
) -> None:
    source = tiny_folder if family == "z-image" else tiny_z_image(tmp_path / "z")
    failed(draw(engine_for(source, tmp_path, family=family), **TINY), is_a, family, "mend `family`")


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_end_the_job_in_words_and_never_as_a_black_picture(
    own: Path, tmp_path: Path, poison: float
) -> None:
    file = weights_of(own, "transformer")
    tensors = load_file(file)
    tensors["proj_out.bias"][:] = poison
    save_file(tensors, file, metadata={"format": "pt"})
    events = list(
        (engine := engine_for(own, tmp_path)).start(engine.check({"prompt": "a fox", **TINY})).events()
    )
    failed(events[-1], "not finite", "no picture")
    assert [event.preview for event in events if event.preview] == []


def test_a_vae_that_overflows_ends_the_job_in_words(own: Path, tmp_path: Path) -> None:
    file = weights_of(own, "vae")
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"][:] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    failed(draw(engine_for(own, tmp_path), **TINY), "VAE", "not finite")


def test_running_out_of_memory_names_what_is_cheaper_and_the_next_job_draws(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own error, raised by the test: the machine must not really run out."""
    from diffusers import AutoencoderKL

    with monkeypatch.context() as short:

        def decode(*_: Any, **__: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        short.setattr(AutoencoderKL, "decode", decode)
        failed(draw(tiny, **TINY), "out of memory", "smaller width and height")
    assert draw(tiny, **TINY).phase == "finished"


def test_an_error_nobody_expected_fails_in_words_and_the_next_job_draws(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import SD3Transformer2DModel

    with monkeypatch.context() as broken:

        def forward(*_: Any, **__: Any) -> None:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)")

        broken.setattr(SD3Transformer2DModel, "forward", forward)
        event = draw(tiny, **TINY)
        failed(event, "could not finish this picture", "log")
        assert event.error is not None
        assert "mat1" not in event.error
    assert draw(tiny, **TINY).phase == "finished"


def test_weights_are_loaded_once(engine: Engine) -> None:
    draw(engine, steps=1)
    events = engine.start(engine.check({"prompt": "a", "model": "sketch", "steps": 1})).events()
    assert "loading" not in [event.phase for event in events]


def test_a_preloaded_model_draws_without_loading(tiny: Engine) -> None:
    tiny.preload("tiny").join(60)
    events = tiny.start(tiny.check({"prompt": "a", **TINY})).events()
    assert "loading" not in [event.phase for event in events]


def test_a_preload_that_fails_is_told_to_the_first_job(own: Path, tmp_path: Path) -> None:
    engine = engine_for(own, tmp_path)
    shutil.move(own / "vae", tmp_path / "away")
    engine.preload("tiny").join(60)
    failed(draw(engine, **TINY), "vae")
    shutil.move(tmp_path / "away", own / "vae")
    assert draw(engine, **TINY).phase == "finished"


def test_no_file_of_the_embedded_model_is_larger_than_ten_megabytes() -> None:
    sizes = {file: file.stat().st_size for file in SKETCH.rglob("*") if file.is_file()}
    assert sizes
    assert max(sizes.values()) <= 10_000_000
