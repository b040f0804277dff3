"""Weights that are damaged, missing, of another family, or that overflow end a job in words that say what to
mend; once mended, the next job draws without a restart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.engine import Engine
from pipeline.errors import ModelUnavailable
from pipeline.events import Event
from tests.support.tiny import SKETCH, catalogue, draw, entry, tiny_z_image

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


def refused(engine: Engine, *words: str) -> None:
    """Checks that the model is listed with these words as the reason, and not drawn with."""
    (listed,) = engine.models()
    assert not listed["available"]
    with pytest.raises(ModelUnavailable) as refusal:
        draw(engine, **TINY)
    for word in words:
        assert word in str(refusal.value)
    assert listed["reason"] in str(refusal.value)
    for word in ("/tmp", "cache", "other settings"):
        assert word not in listed["reason"]


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
    refused(engine, "Tiny", f"own/{part}/{file.name} is damaged")
    file.write_bytes(whole)
    assert draw(engine, **TINY).phase == "finished"


@pytest.mark.parametrize("part", ["transformer", "vae", "tokenizer", "scheduler", "text_encoder_3"])
def test_a_missing_part_fails_in_words_and_works_after_repair(own: Path, tmp_path: Path, part: str) -> None:
    engine = engine_for(own, tmp_path)
    shutil.move(own / part, tmp_path / "away")
    refused(engine, "Tiny", part)
    shutil.move(tmp_path / "away", own / part)
    assert draw(engine, **TINY).phase == "finished"


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder_2"])
def test_a_part_without_its_weights_or_its_configuration_fails_in_words_and_works_after_repair(
    own: Path, tmp_path: Path, part: str
) -> None:
    engine = engine_for(own, tmp_path)
    for file, words in (
        (own / part / "config.json", f"own has no {part}/config.json"),
        (weights_of(own, part), f"own/{part} has no safetensors file"),
    ):
        shutil.move(file, tmp_path / "away")
        refused(engine, "Tiny", words, "copy the whole folder own again")
        shutil.move(tmp_path / "away", file)
    (own / part / "config.json").replace(tmp_path / "away")
    (own / part / "config.json").write_text("[]")
    refused(engine, "Tiny", f"config.json in own/{part} is damaged")
    (tmp_path / "away").replace(own / part / "config.json")
    assert draw(engine, **TINY).phase == "finished"


def test_a_missing_shard_is_named(own: Path, tmp_path: Path) -> None:
    file = weights_of(own, "transformer")
    shards = {"weight_map": {"a": file.name, "b": "second.safetensors"}}
    (own / "transformer" / "x.safetensors.index.json").write_text(json.dumps(shards))
    refused(engine_for(own, tmp_path), "own/transformer lacks second.safetensors")


def test_a_folder_of_something_else_is_told_apart(own: Path, tmp_path: Path) -> None:
    refused(engine_for(own / "transformer", tmp_path), "one part of one: name the folder above it")
    (tmp_path / "models--me--tiny" / "snapshots").mkdir(parents=True)
    hub = engine_for(tmp_path / "models--me--tiny", tmp_path)
    (listed,) = hub.models()
    assert "is a folder of the Hub's cache: name the Hub id" in listed["reason"]
    (tmp_path / "loras").mkdir()
    shutil.copy(weights_of(own, "transformer"), tmp_path / "loras" / "mine.safetensors")
    refused(engine_for(tmp_path / "loras", tmp_path), "name that file and add `base`", "mine.safetensors")
    index = json.loads((own / "model_index.json").read_text()) | {"_class_name": "FluxPipeline"}
    (own / "model_index.json").write_text(json.dumps(index))
    refused(engine_for(own, tmp_path), "own is a FluxPipeline", "mend `family` or `source`")


def test_a_weights_file_that_gets_damaged_between_the_look_and_the_reading_is_named(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for(own, tmp_path)
    file = weights_of(own, "vae")
    job = engine.check({"prompt": "a fox", **TINY})
    with monkeypatch.context() as late:
        late.setattr(engine, "checked", lambda job: job)
        file.write_bytes(file.read_bytes()[:100])
        failed(engine.start(job).result(), "Tiny: own/vae/", "is damaged: it ends after 100 bytes")


def test_a_folder_that_is_no_pipeline_fails_in_words(own: Path, tmp_path: Path) -> None:
    engine = engine_for(own, tmp_path)
    (own / "model_index.json").unlink()
    refused(engine, "model_index.json", "models.yaml")


def test_a_model_index_that_is_not_json_fails_in_words(own: Path, tmp_path: Path) -> None:
    engine = engine_for(own, tmp_path)
    (own / "model_index.json").write_text("{oops")
    refused(engine, "model_index.json")


@pytest.mark.parametrize("family, is_a", [("sd3", "ZImagePipeline"), ("z-image", "StableDiffusion3Pipeline")])
def test_the_wrong_family_fails_with_both_names(
    tiny_folder: Path, tmp_path: Path, family: str, is_a: str
) -> None:
    source = tiny_folder if family == "z-image" else tiny_z_image(tmp_path / "z")
    refused(engine_for(source, tmp_path, family=family), is_a, family, "mend `family`")


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
    tiny.load("tiny")
    events = tiny.start(tiny.check({"prompt": "a", **TINY})).events()
    assert "loading" not in [event.phase for event in events]


def test_a_preload_that_fails_is_told_to_the_first_job(own: Path, tmp_path: Path) -> None:
    engine = engine_for(own, tmp_path)
    shutil.move(own / "vae", tmp_path / "away")
    with pytest.raises(ModelUnavailable, match="vae"):
        engine.load("tiny")
    refused(engine, "vae")
    shutil.move(tmp_path / "away", own / "vae")
    assert draw(engine, **TINY).phase == "finished"


def test_no_file_of_the_embedded_model_is_larger_than_ten_megabytes() -> None:
    sizes = {file: file.stat().st_size for file in SKETCH.rglob("*") if file.is_file()}
    assert sizes
    assert max(sizes.values()) <= 10_000_000
