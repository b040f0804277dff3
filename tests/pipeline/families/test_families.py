"""Any diffusers pipeline with a step callback can be a model: Z-Image goes through the code of SD3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import transformers

from pipeline.engine import Engine
from tests.support.tiny import (
    SKETCH,
    catalogue,
    draw,
    entry,
    hold,
    own_entries,
    pixels,
    tiny_sd3,
    tiny_sd35,
    tiny_z_image,
)

SIZE = {"width": 64, "height": 64}


@pytest.fixture(scope="module")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("z-image")
    return Engine(catalogue(folder, entry(tiny_z_image(folder / "z"), family="z-image", preview="flux")))


def test_a_z_image_model_draws_with_a_preview_at_every_step_it_shows(z_image: Engine) -> None:
    job = z_image.check({"prompt": "a fox", "steps": 9, "guidance": 0, **SIZE})
    events = list(z_image.start(job).events())
    assert events[-1].phase == "finished", events[-1].error
    assert pixels(events[-1].images[0]).shape == (64, 64, 3)
    shown = [event for event in events if event.phase == "denoising" and event.step]
    assert shown
    assert all(event.preview for event in shown)


def test_z_image_reads_a_negative_prompt_at_any_guidance_above_zero(z_image: Engine) -> None:
    def picture(**values: Any) -> Any:
        return draw(z_image, model="tiny", **SIZE, **values)

    plain = picture(guidance=0.5)
    other = picture(guidance=0.5, negative_prompt="blue sky and houses")
    assert (pixels(plain.images[0]) != pixels(other.images[0])).any()
    ignored = picture(guidance=0, negative_prompt="blue")
    assert ignored.warnings == ("The negative prompt does nothing at guidance 0: Tiny reads it above 0.",)
    assert (pixels(ignored.images[0]) == pixels(picture(guidance=0).images[0])).all()


def test_sd3_reads_a_negative_prompt_at_guidance_above_one(tiny: Engine) -> None:
    def picture(**values: Any) -> Any:
        return pixels(draw(tiny, model="tiny", **SIZE, **values).images[0])

    assert (picture(guidance=3) != picture(guidance=3, negative_prompt="blue sky")).any()
    assert (picture(guidance=1) == picture(guidance=1, negative_prompt="blue sky")).all()


def test_a_z_image_job_drawn_twice_gives_the_same_pixels(z_image: Engine) -> None:
    one, other = (draw(z_image, model="tiny", **SIZE, images=2) for _ in range(2))
    for a, b in zip(one.images, other.images, strict=True):
        assert (pixels(a) == pixels(b)).all()


def test_the_entrys_skip_layer_guidance_reaches_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_sd3(tmp_path / "sd3", layers=3)
    skipping = {"layers": [1, 2], "scale": 2.8, "start": 0.01, "stop": 0.5}
    engine = Engine(catalogue(tmp_path, entry(source), entry(source, "skips", skip_layer_guidance=skipping)))
    given: list[dict[str, Any]] = []
    call = diffusers.StableDiffusion3Pipeline.__call__

    def watched(pipe: Any, *args: Any, **kwargs: Any) -> Any:
        given.append(kwargs)
        return call(pipe, *args, **kwargs)

    monkeypatch.setattr(diffusers.StableDiffusion3Pipeline, "__call__", watched)
    forwards = hold(monkeypatch, diffusers.SD3Transformer2DModel, "forward", call=-1)
    plain = draw(engine, **SIZE, model="tiny", steps=6)
    without, forwards.calls = forwards.calls, 0
    skipped = draw(engine, **SIZE, model="skips", steps=6)
    assert not [name for name in given[0] if "skip" in name]
    assert {name: value for name, value in given[1].items() if "skip" in name} == {
        "skip_guidance_layers": [1, 2],
        "skip_layer_guidance_scale": 2.8,
        "skip_layer_guidance_start": 0.01,
        "skip_layer_guidance_stop": 0.5,
    }
    assert forwards.calls > without == 6
    assert (pixels(plain.images[0]) != pixels(skipped.images[0])).any()


SD35 = ("sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium")


@pytest.fixture(scope="module")
def sd35(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The repository's own entries of SD3.5, with tiny weights behind them."""
    folder = tmp_path_factory.mktemp("sd35")
    sources = {"sd3.5-medium": tiny_sd35(folder / "medium", medium=True)}
    large = tiny_sd35(folder / "large")
    entries = own_entries()
    for model in SD35:
        entries[model]["source"] = str(sources.get(model, large))
        del entries[model]["revision"]
    return Engine(catalogue(folder, *(entries[model] for model in SD35)))


def watch_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[dict[str, Any]]:
    """The keyword arguments of every call of owner.name, which goes on doing what it does."""
    given: list[dict[str, Any]] = []
    real = getattr(owner, name)

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        given.append(kwargs)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, watched)
    return given


def test_medium_is_drawn_with_its_cards_skip_layer_guidance_and_large_and_turbo_without(
    sd35: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = watch_calls(monkeypatch, diffusers.StableDiffusion3Pipeline, "__call__")
    forwards = watch_calls(monkeypatch, diffusers.SD3Transformer2DModel, "forward")
    skipping, skipped = {}, {}
    for model in SD35:
        event = draw(sd35, **SIZE, model=model, steps=10)
        assert event.phase == "finished", event.error
        skipping[model] = {name: value for name, value in calls[-1].items() if "skip" in name}
        skipped[model] = [one["skip_layers"] for one in forwards if one.get("skip_layers")]
        forwards.clear()
    assert skipping == {
        "sd3.5-large": {},
        "sd3.5-large-turbo": {},
        "sd3.5-medium": {
            "skip_guidance_layers": [7, 8, 9],
            "skip_layer_guidance_scale": 2.8,
            "skip_layer_guidance_start": 0.01,
            "skip_layer_guidance_stop": 0.2,
        },
    }
    # Of ten steps, the second alone lies between 1 % and 20 % of the schedule.
    assert skipped == {"sd3.5-large": [], "sd3.5-large-turbo": [], "sd3.5-medium": [[7, 8, 9]]}


def test_a_long_prompt_reaches_t5_with_512_tokens_and_medium_alone_warns_of_artefacts(
    sd35: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encodings = watch_calls(monkeypatch, diffusers.StableDiffusion3Pipeline, "encode_prompt")
    tokenizer = transformers.T5Tokenizer.from_pretrained(SKETCH / "tokenizer_3")
    words = "a red fox in a green hat on a blue house and " * 60

    def of_length(tokens: int) -> str:
        ids = tokenizer(words).input_ids[: tokens - 1]
        return tokenizer.decode(ids)

    for tokens, given in ((256, 256), (257, 512), (512, 512)):
        prompt = of_length(tokens)
        assert len(tokenizer(prompt).input_ids) == tokens
        for model in SD35:
            event = draw(sd35, **SIZE, model=model, steps=1, prompt=prompt)
            ours = [one for one in encodings if one.get("prompt_embeds") is None][-1]
            assert ours["max_sequence_length"] == given
            artefacts = [words for words in event.warnings if "artefacts" in words]
            assert artefacts == (
                [
                    f"The prompt is {tokens} tokens long. Past 256, Stable Diffusion 3.5 Medium may draw "
                    "artefacts at the picture's edges: shorten it if they show."
                ]
                if model == "sd3.5-medium" and tokens > 256
                else []
            )
            assert not [words for words in event.warnings if "Not read" in words]


def test_a_negative_prompt_that_is_long_is_warned_about_too(sd35: Engine) -> None:
    event = draw(sd35, **SIZE, model="sd3.5-medium", steps=1, prompt="a fox", negative_prompt="ugly " * 200)
    assert [words for words in event.warnings if words.startswith("The negative prompt is ")]
    off = draw(sd35, **SIZE, model="sd3.5-medium", steps=1, guidance=1, negative_prompt="ugly " * 200)
    assert len(off.warnings) == 1
