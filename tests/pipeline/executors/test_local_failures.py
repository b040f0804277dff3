"""What fails on one device of this process, a lost GPU above all, takes nothing else with it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection

from pipeline.engine import Engine
from pipeline.errors import WorkerDied
from pipeline.events import Event
from pipeline.run import Cancel
from pipeline.sampling import sample
from pipeline.weights.residency import Residency
from tests.pipeline.executors.callers import TINY, Caller, executor
from tests.support.tiny import catalogue, draw, entry, hold, stand_in_gpu

LOST = "CUDA error: an illegal memory access was encountered"


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], None]:
    """Has every drawing of a kind of device raise this."""

    def fail(device: str, error: Exception) -> None:
        real = sample.draw

        def failing(run: Any, weights: Any, memory: Any) -> None:
            if weights.device.kind == device:
                raise error
            real(run, weights, memory)

        monkeypatch.setattr("pipeline.executors.local.draw", failing)

    return fail


def test_a_lost_gpu_marks_its_executor_before_anyone_is_told_and_no_other_device(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Any
) -> None:
    stand_in_gpu(monkeypatch)
    engine = Engine(catalogue(tmp_path, entry(tiny_folder), entry(tiny_folder, "on-gpu", device=None)))
    fails("cuda", RuntimeError(LOST))
    seen: list[str] = []

    def emit(event: Event) -> None:
        if event.last:
            seen.append(executor(engine, "cuda").capabilities().lost)

    last = engine.run(engine.check(TINY | {"model": "on-gpu"}), emit, Cancel())
    assert (last.phase, last.code) == ("failed", WorkerDied.code)
    assert "restart the server" in seen[0]
    assert executor(engine, "cuda").capabilities().reason == seen[0]
    assert executor(engine).capabilities().lost == executor(engine).capabilities().reason == ""
    assert draw(engine, **TINY).phase == "finished"


def test_whoever_waits_for_a_gpu_that_is_lost_is_not_drawn_with_it_and_told_the_same(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, CLIPTextModelWithProjection, "forward")

    def lost(*_: Any, **__: Any) -> None:
        raise RuntimeError(LOST)

    monkeypatch.setattr(SD3Transformer2DModel, "forward", lost)
    first = Caller(tiny)
    gate.wait()
    second = Caller(tiny, seed=8)
    gate.open()
    assert [first.end().code, second.end().code] == [WorkerDied.code] * 2
    assert "restart the server" in str(second.end().error)
    assert not [event for event in second.events if event.phase not in ("queued", "failed")]


def test_a_gpu_that_is_lost_while_a_model_is_made_ready_is_lost_to_the_jobs_too(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise RuntimeError(LOST)

    monkeypatch.setattr(Residency, "_place", lost)
    with pytest.raises(WorkerDied):
        tiny.load("tiny")
    assert "restart the server" in executor(tiny).capabilities().lost


def test_a_gpu_that_is_lost_once_its_job_was_stopped_is_known_to_be_lost(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, Residency, "_place")
    place = Residency._place

    def lost(*args: Any, **kwargs: Any) -> None:
        place(*args, **kwargs)
        raise RuntimeError(LOST)

    monkeypatch.setattr(Residency, "_place", lost)
    one = Caller(tiny)
    gate.wait()
    one.cancel.set()
    assert one.end().phase == "stopped"
    gate.open()
    executor(tiny).join(60)
    assert "restart the server" in executor(tiny).capabilities().lost


def test_a_failed_run_holds_nothing_in_memory_once_it_is_over(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tensors of a picture for which memory ran out: they go without a garbage collection."""

    class Tensor:
        pass

    held: list[weakref.ref[Tensor]] = []

    def failing(*_: Any) -> None:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise MemoryError

    monkeypatch.setattr("pipeline.executors.local.draw", failing)
    job = tiny.check(TINY)
    gc.collect()
    gc.disable()
    try:
        assert tiny.run(job, lambda _: None, Cancel()).phase == "failed"
        executor(tiny).join(60)
        assert held[0]() is None
    finally:
        gc.enable()
