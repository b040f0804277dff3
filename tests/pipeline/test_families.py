"""Any diffusers pipeline with a step callback can be a model: Z-Image goes through the code of SD3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest

from pipeline.engine import Engine
from tests.tiny import catalogue, draw, entry, hold, pixels, tiny_sd3, tiny_z_image

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
