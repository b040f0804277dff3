"""One device of this process: its runs never overlap, and a stop ends each at once wherever that can be."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from diffusers import SD3Transformer2DModel

from pipeline.engine import Engine
from pipeline.errors import Stopped
from pipeline.events import Event
from pipeline.run import Cancel, Preparation
from pipeline.sampling import sample
from pipeline.weights import download
from pipeline.weights.residency import Residency
from tests.jobs.queueing import until
from tests.pipeline.executors.callers import TINY, Caller, executor
from tests.support.tiny import catalogue, entry, hold, stand_in_gpu


def test_a_run_gives_its_events_and_returns_the_last_one_of_them(tiny: Engine) -> None:
    seen: list[Event] = []
    last = tiny.run(tiny.check(TINY), seen.append, Cancel())
    assert last is seen[-1]
    assert (last.phase, len(last.images)) == ("finished", 1)
    assert [event.last for event in seen] == [False] * (len(seen) - 1) + [True]


def test_two_runs_of_one_device_never_overlap(tiny: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    at, most = [0], [0]
    real = sample.draw

    def counted(*args: Any) -> None:
        at[0] += 1
        most[0] = max(most[0], at[0])
        try:
            real(*args)
        finally:
            at[0] -= 1

    monkeypatch.setattr("pipeline.executors.local.draw", counted)
    callers = [Caller(tiny, seed=seed) for seed in range(5)]
    assert [caller.end().phase for caller in callers] == ["finished"] * 5
    assert most == [1]


def test_two_devices_draw_at_the_same_time(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_gpu(monkeypatch)
    engine = Engine(catalogue(tmp_path, entry(tiny_folder), entry(tiny_folder, "on-gpu", device=None)))
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    held = Caller(engine)
    gate.wait()
    assert Caller(engine, model="on-gpu").end().phase == "finished"
    gate.open()
    assert held.end().phase == "finished"


# Stopping.


def test_a_stop_before_the_run_begins_keeps_it_from_the_device_and_from_the_network(
    tiny: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[object] = []
    monkeypatch.setattr("pipeline.executors.local.draw", lambda *args: began.append(args))
    monkeypatch.setattr(download, "_shared", began.append)
    engine = Engine(catalogue(tmp_path, entry(Path("me/tiny"))))
    cancel = Cancel()
    cancel.set()
    for one in (tiny, engine):
        seen: list[Event] = []
        assert one.run(one.check(TINY), seen.append, cancel).phase == "stopped"
        assert [event.phase for event in seen] == ["stopped"]
    assert began == []


def test_a_stop_while_it_waits_for_its_turn_ends_it_at_once_and_it_is_never_drawn(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    first = Caller(tiny)
    gate.wait()
    second, third = Caller(tiny, seed=8), Caller(tiny, seed=9)
    second.cancel.set()
    assert second.end().phase == "stopped"
    gate.open()
    assert [first.end().phase, third.end().phase] == ["finished", "finished"]
    assert not [event for event in second.events if event.phase not in ("queued", "stopped")]


def test_a_stop_while_a_network_is_read_ends_the_run_at_once_and_nothing_comes_after_its_end(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, Residency, "_place", call=2)
    one = Caller(tiny)
    gate.wait()
    one.cancel.set()
    assert one.end().phase == "stopped"
    told = len(one.events)
    following = Caller(tiny, seed=8)
    gate.open()
    assert following.end().phase == "finished"
    assert len(one.events) == told


def test_whoever_waits_for_a_network_that_nobody_wants_any_more_is_queued_until_it_is_there(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, Residency, "_place", call=2)
    one = Caller(tiny)
    gate.wait()
    one.cancel.set()
    one.end()
    assert executor(tiny)._thread.busy
    told = threading.Event()
    seen: list[Event] = []

    def emit(event: Event) -> None:
        seen.append(event)
        told.set()

    waits = threading.Thread(target=tiny.run, args=(tiny.check(TINY), emit, Cancel()), daemon=True)
    waits.start()
    assert told.wait(60)
    assert [event.phase for event in seen] == ["queued"]
    gate.open()
    waits.join(600)
    assert seen[-1].phase == "finished"


def test_a_stop_of_one_that_waits_does_not_end_the_one_that_loads_before_it(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, Residency, "_place", call=2)
    first = Caller(tiny)
    gate.wait()
    second = Caller(tiny, seed=8)
    second.cancel.set()
    assert second.end().phase == "stopped"
    assert first.result is None
    gate.open()
    assert first.end().phase == "finished"


def test_whenever_it_is_stopped_it_has_one_end_and_the_next_one_draws(
    tiny: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the very moment of each of its events, from within `emit`, which must not lock itself out."""
    job = tiny.check(TINY)
    for moment in range(12):
        cancel, seen = Cancel(), list[Event]()

        def emit(event: Event, cancel: Cancel = cancel, seen: list[Event] = seen, at: int = moment) -> None:
            seen.append(event)
            if len(seen) == at + 1:
                cancel.set()

        last = tiny.run(job, emit, cancel)
        assert last.phase in ("stopped", "finished")
        assert [event.last for event in seen] == [False] * (len(seen) - 1) + [True]
    assert tiny.run(job, seen.append, Cancel()).phase == "finished"


def test_closing_ends_what_draws_what_waits_and_what_is_fetched_and_waits_for_all_of_it(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(catalogue(tmp_path, entry(tiny_folder), entry(Path("me/far"), "far")))
    fetching, given_up = threading.Event(), threading.Event()

    def fetch(spec: Any, report: Any) -> Path:
        while True:
            fetching.set()
            given_up.wait(0.01)
            report("downloading", 0, 1)

    monkeypatch.setattr("pipeline.executors.local.fetch", fetch)
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    callers = [Caller(engine), Caller(engine, model="far")]
    gate.wait()
    assert fetching.wait(60)
    callers.append(Caller(engine, seed=8))
    made_ready = Preparation(lambda *_: None, Cancel())

    def prepare() -> None:
        with pytest.raises(Stopped):
            engine.load("far", made_ready)

    load = threading.Thread(target=prepare, daemon=True)
    load.start()
    until(lambda: len(executor(engine)._turns._cancels) == 4)
    closing = threading.Thread(target=engine.close, args=(60,))
    closing.start()
    assert callers[1].end().phase == callers[2].end().phase == "stopped"
    load.join(60)
    assert not load.is_alive()
    assert closing.is_alive(), "a step can't be interrupted"
    gate.open()
    closing.join(60)
    assert not closing.is_alive()
    assert callers[0].end().phase == "stopped"
