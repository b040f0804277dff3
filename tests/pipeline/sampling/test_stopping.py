"""Stop works within one step in every phase, keeps the last preview, and ends that job and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, SD3Transformer2DModel, ZImageTransformer2DModel
from transformers import CLIPTextModelWithProjection

from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.run import Drawing
from pipeline.sampling import preview
from pipeline.weights.residency import Residency
from tests.support.steps import Steps
from tests.support.tiny import catalogue, draw, entry, hold, pixels, tiny_z_image

TINY = {"model": "tiny", "width": 64, "height": 64}


def start(engine: Engine, **values: Any) -> Drawing:
    return engine.start(engine.check({"prompt": "a red apple", **TINY, **values}))


def test_a_queued_job_stops_at_once_while_another_is_drawn(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    first, second, third = start(tiny), start(tiny), start(tiny)
    gate.wait()
    second.stop()
    assert second.result().phase == "stopped"
    assert first.latest.phase == "denoising"
    assert third.latest.phase == "queued"
    gate.open()
    assert [first.result().phase, third.result().phase] == ["finished", "finished"]


def test_a_job_stops_at_once_while_a_network_is_read_and_the_next_draws_after_that(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, Residency, "_place", call=3)
    drawing = start(tiny)
    gate.wait()
    assert drawing.latest.phase == "loading"
    drawing.stop()
    assert drawing.result().phase == "stopped"
    following = start(tiny)
    assert following.latest.phase == "queued"  # the device isn't free before that network is there
    gate.open()
    assert following.result().phase == "finished"
    assert gate.calls == 5  # each was read once: what was ready when the first one stopped stayed


def test_a_job_stops_while_the_prompt_is_encoded(tiny: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = hold(monkeypatch, SD3Transformer2DModel, "forward", call=-1)
    gate = hold(monkeypatch, CLIPTextModelWithProjection, "forward")
    drawing = start(tiny)
    gate.wait()
    drawing.stop()
    assert drawing.latest.phase == "encoding"
    gate.open()
    end = drawing.result()
    assert (end.phase, end.step, end.preview) == ("stopped", 0, None)
    assert steps.calls == 0


@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_job_stops_within_one_step_and_keeps_its_last_preview(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=step)
    drawing = start(tiny, steps=20)
    gate.wait()
    drawing.stop()
    gate.open()
    end = drawing.result()
    assert gate.calls == step  # the step it was in, and none after it
    assert (end.phase, end.step) == ("stopped", step)
    assert end.preview is not None
    assert pixels(end.preview).shape == (64, 64, 3)
    assert end.images == ()
    assert end.error is None


def test_a_preview_still_being_rendered_cannot_replace_the_last_one(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering = hold(monkeypatch, preview, "render")
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=3)
    leave = preview.Previewer.__exit__

    def leaving(previewer: preview.Previewer, *error: object) -> None:
        rendering.open()
        leave(previewer, *error)

    monkeypatch.setattr(preview.Previewer, "__exit__", leaving)
    drawing = start(tiny, steps=20)
    gate.wait()
    rendering.wait()
    drawing.stop()
    gate.open()
    assert drawing.result().step == 3


def test_a_job_stops_while_the_picture_is_decoded(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch, steps_here: Steps
) -> None:
    gate = hold(monkeypatch, AutoencoderKL, "decode")
    steps_here.hold(4)
    drawing = start(tiny)
    next(event for event in drawing.events() if event.step == 4)
    steps_here.go_on()
    gate.wait()
    shown = drawing.latest.preview
    assert drawing.latest.phase == "decoding"
    drawing.stop()
    gate.open()
    end = drawing.result()
    assert (end.phase, end.images) == ("stopped", ())
    assert end.preview == shown is not None


def test_stopping_the_second_image_keeps_the_first_one_finished(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=6)
    drawing = start(tiny, images=3, seed=1)
    gate.wait()
    drawing.stop()
    gate.open()
    end = drawing.result()
    assert (end.phase, end.image, end.step, len(end.images), len(end.previews)) == ("stopped", 2, 2, 1, 2)
    alone = draw(tiny, **TINY, seed=1)
    assert (pixels(end.images[0]) == pixels(alone.images[0])).all()


def test_a_z_image_job_stops_by_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny_z_image(tmp_path / "z")
    engine = Engine(catalogue(tmp_path, entry(source, family="z-image", preview="flux")))
    gate = hold(monkeypatch, ZImageTransformer2DModel, "forward", call=3)
    drawing = start(engine, steps=20)
    gate.wait()
    drawing.stop()
    gate.open()
    end = drawing.result()
    assert (end.phase, end.step, gate.calls) == ("stopped", 3, 3)
    assert end.preview is not None


def test_stopping_ends_one_drawing_and_no_other(tiny: Engine, steps_here: Steps) -> None:
    steps_here.hold(1)
    drawings = [start(tiny, steps=10) for _ in range(5)]
    for stopped in drawings[1::2]:
        stopped.stop()
    steps_here.go_on()
    assert [drawing.result().phase for drawing in drawings[::2]] == ["finished"] * 3
    assert [drawing.result().phase for drawing in drawings[1::2]] == ["stopped"] * 2


def test_stopping_twice_or_after_the_end_changes_nothing(tiny: Engine) -> None:
    drawing = start(tiny)
    end = drawing.result()
    drawing.stop()
    drawing.stop()
    assert drawing.latest is end
    assert end.phase == "finished"


def test_stopping_every_drawing_at_any_moment_leaves_an_engine_that_draws(tiny: Engine) -> None:
    """Whatever the moment: each of these is stopped at another number of events read."""
    for moment in range(1, 9):
        drawing = start(tiny, steps=10)
        seen: list[Event] = []
        for event in drawing.events():
            seen.append(event)
            if len(seen) == moment:
                drawing.stop()
        assert seen[-1].phase in ("stopped", "finished")
    assert draw(tiny, **TINY).phase == "finished"
