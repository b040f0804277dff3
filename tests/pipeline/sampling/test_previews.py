"""Every step is shown as the picture it is heading to, ever nearer to the finished one."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel

from pipeline.devices.serial_thread import SerialThread
from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.run import Cancel
from pipeline.sampling.preview import (
    INTERVAL,
    LONGEST_SIDE,
    Estimate,
    Previewer,
    Progress,
    render,
)
from pipeline.weights.model import read_factors
from tests.support.steps import Steps
from tests.support.tiny import SKETCH, SMALL, hold, pixels

FOX = {"prompt": "a fox on a blue background", "model": "sketch", "steps": 14, "seed": 1}


def read(steps: Steps, engine: Engine, values: dict[str, Any]) -> list[Event]:
    """The events of one drawing, each step's among them: none is begun before the one before was read."""
    steps.hold(1)
    events = []
    for event in engine.start(engine.check(values)).events():
        events.append(event)
        if event.phase == "denoising":
            steps.hold((event.image - 1) * event.steps + event.step + 1)
    return events


@pytest.fixture(scope="module")
def watched(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    """One drawing of a fox."""
    with pytest.MonkeyPatch.context() as patch:
        steps = Steps(tmp_path_factory.mktemp("watched") / "steps").here(patch)
        return read(steps, engine, FOX)


def distance(preview: bytes, final: bytes) -> float:
    return float(np.sqrt(np.square(pixels(preview) - pixels(final)).mean()))


def test_each_preview_is_nearer_to_the_finished_picture(watched: list[Event]) -> None:
    final = watched[-1].images[0]
    shown = {e.step: e.preview for e in watched if e.phase == "denoising" and e.preview is not None}
    assert len(set(shown.values())) >= 8
    quarters = [preview for _, preview in sorted(shown.items())][1 :: (len(shown) - 1) // 4]
    distances = [distance(preview, final) for preview in quarters]
    assert len(distances) >= 4
    assert distances == sorted(distances, reverse=True), distances
    assert distances[-1] < 0.8 * distances[0]


def test_the_first_step_already_shows_where_the_picture_is_heading(watched: list[Event]) -> None:
    """A preview of the noisy latents would start as noise; the denoised estimate starts as a smooth blur."""
    first = next(event.preview for event in watched if event.preview is not None)
    grain = np.abs(np.diff(pixels(first), axis=1)).mean()
    generator = np.random.default_rng(0)
    noise = np.abs(np.diff(generator.normal(128, 50, (256, 256, 3)), axis=1)).mean()
    assert grain < noise / 3


def test_phases_come_in_their_order_and_steps_only_go_up(watched: list[Event]) -> None:
    order = ["queued", "loading", "encoding", "denoising", "decoding", "finished"]
    phases = [event.phase for event in watched]
    assert [order.index(phase) for phase in phases] == sorted(order.index(phase) for phase in phases)
    steps = [event.step for event in watched]
    assert steps == sorted(steps)
    assert steps[-1] == watched[-1].steps == 14


def test_the_time_left_shrinks_to_nothing(watched: list[Event]) -> None:
    left = [event.eta for event in watched if event.phase == "denoising" and event.eta is not None]
    assert len(left) >= 4
    assert left[-1] < left[0]
    assert watched[-1].eta == 0
    assert watched[-1].seconds > 0


def test_the_last_preview_is_the_finished_picture_itself(watched: list[Event]) -> None:
    assert distance(watched[-1].previews[0], watched[-1].images[0]) < 6  # JPEG against PNG


def test_a_model_without_preview_factors_still_shows_its_steps() -> None:
    posted: list[tuple[int, bytes | None]] = []
    estimate = Estimate(torch.zeros(1, 16, 8, 8), torch.zeros(1, 16, 8, 8), 0.5)

    def post(progress: Progress, preview: bytes | None) -> None:
        posted.append((progress["step"], preview))

    with Previewer(None, (64, 64), post, SerialThread("previews")) as previewer:
        previewer.offer({"step": 1}, estimate)
    assert posted == [(1, None)]


@pytest.mark.parametrize("step, at_least", [(0.02, 8), (0.0624, 8), (0.0626, 8), (0.2, 4), (1.0, 1)])
def test_previews_come_at_every_slow_step_and_eight_times_a_second_at_fast_ones(
    monkeypatch: pytest.MonkeyPatch, step: float, at_least: int
) -> None:
    """The clock stands in for steps of exact length."""
    now = 100.0
    monkeypatch.setattr("pipeline.sampling.preview.time.monotonic", lambda: now)
    posted: list[float] = []
    previewer = Previewer(
        None, (64, 64), lambda progress, _: posted.append(progress["at"]), SerialThread("previews")
    )
    for _ in range(round(10 / step)):
        now += step
        previewer.offer({"at": now}, None)
    a_second = len(posted) / 10
    assert a_second >= at_least * 0.99
    assert a_second <= 1 / step * 1.01
    if step >= INTERVAL:
        assert len(posted) == round(10 / step)


def test_a_preview_keeps_the_pictures_proportions_and_stays_small(engine: Engine) -> None:
    estimate = Estimate(torch.zeros(1, 16, 64, 192), torch.zeros(1, 16, 64, 192), 1.0)
    factors = read_factors(engine.catalogue["sketch"], SKETCH)
    assert factors is not None
    height, width, _ = pixels(render(estimate, factors, 1536, 512)).shape
    assert (width, height) == (LONGEST_SIDE, LONGEST_SIDE // 3)


def test_several_images_are_previewed_one_after_the_other(engine: Engine, steps_here: Steps) -> None:
    events = read(steps_here, engine, SMALL | {"images": 2, "steps": 3})
    assert max(len(event.previews) for event in events) == 2
    second = [event for event in events if event.image == 2 and event.phase == "denoising"]
    assert second
    assert all(len(event.images) == 1 for event in second)
    assert len(events[-1].images) == 2


def test_a_preview_that_fails_costs_the_previews_and_not_the_picture(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise ValueError("no such colour")

    monkeypatch.setattr("pipeline.sampling.preview.render", fails)
    event = engine.start(engine.check(SMALL)).result()
    assert (event.phase, len(event.images)) == ("finished", 1)


def test_a_preview_that_fails_costs_itself_and_neither_the_progress_nor_the_next_preview(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = render, []

    def fails_first(*args: Any) -> bytes | None:
        calls.append(args)
        if len(calls) <= 2:
            raise ValueError("no such colour")
        return real(*args)

    monkeypatch.setattr("pipeline.sampling.preview.INTERVAL", 0)
    monkeypatch.setattr("pipeline.sampling.preview.render", fails_first)
    events = list(engine.start(engine.check(SMALL | {"steps": 12, "width": 256, "height": 256})).events())
    assert events[-1].phase == "finished"
    drawn = [event for event in events if event.phase == "denoising" and event.step]
    assert len({event.step for event in drawn}) >= 3
    assert all(event.eta is not None for event in drawn)
    assert any(event.preview is not None for event in drawn)
    told = [record for record in caplog.records if "preview" in record.getMessage()]
    assert len(told) == 1, "it is said once of each picture"


def test_where_no_thread_can_be_had_for_previews_every_step_is_told_all_the_same(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "previews":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr("pipeline.sampling.preview.INTERVAL", 0)
    seen: list[Event] = []
    job = tiny.check({"prompt": "a fox", "model": "tiny", "steps": 6})
    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refused)
        assert tiny.run(job, seen.append, Cancel()).phase == "finished"
    drawn = [event for event in seen if event.phase == "denoising" and event.step]
    assert [event.step for event in drawn] == [1, 2, 3, 4, 5, 6]
    assert all(event.eta is not None and event.preview is None for event in drawn)
    assert "No previews of this picture" in caplog.text
    seen.clear()
    assert tiny.run(job, seen.append, Cancel()).phase == "finished"
    assert any(event.preview for event in seen if event.phase == "denoising"), "the next one has them"


def test_every_step_is_told_where_every_preview_fails(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch, steps_here: Steps
) -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("pipeline.sampling.preview.render", fails)
    events = read(steps_here, tiny, {"prompt": "a fox", "model": "tiny", "steps": 6})
    drawn = [event for event in events if event.phase == "denoising" and event.step]
    assert [event.step for event in drawn] == [1, 2, 3, 4, 5, 6]
    assert all(event.preview is None for event in drawn)
    assert events[-1].phase == "finished"


def test_a_stop_whose_last_preview_fails_is_a_stop(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise ValueError("no such colour")

    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=3)
    monkeypatch.setattr("pipeline.sampling.preview.render", fails)
    drawing = engine.start(engine.check(SMALL))
    gate.wait()
    drawing.stop()
    gate.open()
    event = drawing.result()
    assert (event.phase, event.step, event.error) == ("stopped", 3, None)
