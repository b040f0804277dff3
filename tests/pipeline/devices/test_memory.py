"""When memory runs out a job is drawn once more on a cheaper plan, and the next one starts clean; a VAE that
overflows in half precision decodes in fp32; a prompt that was read before isn't read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.sampling.embedding_cache import EmbeddingCache
from tests.support.tiny import catalogue, draw, entry, pixels, stand_in_gpu, variant

TINY = {"model": "tiny", "width": 64, "height": 64}
KNOWN = {"transformer": 1e-6, "large_text_encoder": 1e-6, "t5": True}


@pytest.fixture
def on_gpu(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    stand_in_gpu(monkeypatch)
    return Engine(catalogue(tmp_path, entry(tiny_folder, device=None, needs=KNOWN)))


class Shortage:
    """Raises torch's own out-of-memory error at these calls of a function: this machine mustn't really run
    out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: set[int]) -> None:
        self.calls = 0
        whole = getattr(owner, name)

        def short(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls in calls:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, short)


def finished(event: Event) -> Event:
    assert event.phase == "finished", event.error
    return event


def test_a_job_that_runs_out_of_memory_is_drawn_again_on_the_next_cheaper_plan_and_says_so(
    on_gpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = finished(draw(on_gpu, **TINY))
    Shortage(monkeypatch, AutoencoderKL, "decode", {1})
    event = finished(draw(on_gpu, **TINY))
    assert event.plan == "encoders-off"
    (warning,) = event.warnings
    assert "Memory ran out with everything on the GPU" in warning
    assert np.array_equal(pixels(event.images[0]), pixels(usual.images[0]))


def test_the_job_after_one_that_ran_out_of_memory_is_drawn_on_its_usual_plan(
    on_gpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shortage(monkeypatch, AutoencoderKL, "decode", {1})
    finished(draw(on_gpu, **TINY))
    after = finished(draw(on_gpu, **TINY))
    assert (after.plan, after.warnings) == ("resident", ())


def test_pictures_that_were_finished_before_memory_ran_out_are_not_drawn_again(
    on_gpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortage = Shortage(monkeypatch, AutoencoderKL, "decode", {2})
    event = finished(draw(on_gpu, images=3, **TINY))
    assert len(event.images) == 3
    assert shortage.calls == 4
    alone = finished(draw(on_gpu, seed=8, **TINY))
    assert np.array_equal(pixels(event.images[1]), pixels(alone.images[0]))


def test_a_job_that_runs_out_of_memory_twice_fails_in_words_and_the_next_one_draws(
    on_gpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortage = Shortage(monkeypatch, AutoencoderKL, "decode", {1, 2})
    event = draw(on_gpu, **TINY)
    assert (event.phase, event.code) == ("failed", "out_of_memory")
    assert "smaller width and height" in (event.error or "")
    assert shortage.calls == 2  # tried again once, not down the whole table
    assert finished(draw(on_gpu, **TINY)).plan == "resident"


def test_running_out_while_weights_are_loaded_is_tried_again_too(
    on_gpu: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shortage(monkeypatch, T5EncoderModel, "from_pretrained", {1})
    assert finished(draw(on_gpu, **TINY)).plan == "encoders-off"


def test_a_stop_during_the_second_try_stops(on_gpu: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    Shortage(monkeypatch, AutoencoderKL, "decode", {1})
    drawing = on_gpu.start(on_gpu.check({"prompt": "a fox", **TINY, "steps": 60}))
    for event in drawing.events():
        if event.plan == "encoders-off" and event.step:
            drawing.stop()
    assert event.phase == "stopped"
    assert event.step < 60


def test_a_vae_that_overflows_in_half_precision_decodes_in_fp32(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_gpu(monkeypatch, dtype="bfloat16")
    engine = Engine(catalogue(tmp_path, entry(tiny_folder, device=None, needs=KNOWN)))
    decode = AutoencoderKL.decode
    dtypes: list[torch.dtype] = []

    def overflowing(self: AutoencoderKL, latents: torch.Tensor, **options: Any) -> Any:
        dtypes.append(self.dtype)
        (decoded,) = decode(self, latents, **options)
        return (decoded if self.dtype == torch.float32 else decoded * torch.inf,)

    with monkeypatch.context() as half:
        half.setattr(AutoencoderKL, "decode", overflowing)
        event = finished(draw(engine, **TINY))
    assert dtypes == [torch.bfloat16, torch.float32]
    usual = finished(draw(engine, **TINY))  # the shared VAE is still the one in bf16
    assert np.abs(pixels(event.images[0]) - pixels(usual.images[0])).mean() < 4  # of 255


# Prompts that were read before.


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one each time a prompt is encoded (CLIP is read twice a prompt: L and G)."""
    calls: list[int] = []
    forward = CLIPTextModelWithProjection.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(len(calls))
        return forward(*args, **kwargs)

    monkeypatch.setattr(CLIPTextModelWithProjection, "forward", counted)
    return calls


def test_a_prompt_that_was_read_is_not_read_again_and_draws_the_same(
    on_gpu: Engine, encoded: list[int]
) -> None:
    first = finished(draw(on_gpu, **TINY))
    before = len(encoded)
    second = finished(draw(on_gpu, **TINY))
    finished(draw(on_gpu, **TINY | {"seed": 9, "width": 96}))
    assert len(encoded) == before > 0
    assert np.array_equal(pixels(first.images[0]), pixels(second.images[0]))


@pytest.mark.parametrize(
    "change",
    [{"prompt": "a fox"}, {"negative_prompt": "red"}, {"guidance": 0}, {"prompt": "a red apple " * 60}],
)
def test_whatever_changes_the_embeddings_is_read_anew(
    on_gpu: Engine, encoded: list[int], change: dict[str, Any]
) -> None:
    finished(draw(on_gpu, **TINY))
    before = len(encoded)
    finished(draw(on_gpu, **TINY | change))
    assert len(encoded) > before


def test_variants_with_the_same_text_encoders_share_what_was_read(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    stand_in_gpu(monkeypatch)
    other = variant(tmp_path / "other", tiny_folder)
    entries = [entry(folder, name, device=None) for name, folder in (("tiny", tiny_folder), ("other", other))]
    engine = Engine(catalogue(tmp_path, *entries))
    finished(draw(engine, **TINY))
    before = len(encoded)
    finished(draw(engine, **TINY | {"model": "other"}))
    assert len(encoded) == before


def test_the_warning_of_a_cut_prompt_is_given_each_time(on_gpu: Engine) -> None:
    long = {"prompt": "a red apple " * 60}
    first, second = (finished(draw(on_gpu, **TINY | long)) for _ in range(2))
    assert first.warnings
    assert first.warnings == second.warnings


def test_embeddings_are_kept_within_their_bound_the_newest_last() -> None:
    cache = EmbeddingCache(most=1000)
    for number in range(5):
        cache.put(number, {"prompt_embeds": [torch.zeros(100)], "negative": None})  # 400 bytes
    assert len(cache) == 2
    assert cache.get(2) is None
    assert cache.get(3) is not None
    cache.put(5, {"prompt_embeds": torch.zeros(100)})
    assert (cache.get(4), len(cache)) == (None, 2)  # 3 was asked for since
