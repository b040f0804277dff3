"""A stop ends its own job, wherever that is, within one step; the device is never given to two."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from diffusers import SD3Transformer2DModel

from bench.stops import Device, run
from jobs.queue import Queue
from jobs.store.models import Owner
from pipeline.engine import Engine
from tests.jobs.queueing import until
from tests.support.tiny import hold

TINY = {"prompt": "a red apple", "model": "tiny", "steps": 12}
STOPS = 60


def test_random_stops_end_each_job_within_a_step_and_never_put_two_on_the_device(
    tiny: Engine, tmp_path: Path
) -> None:
    found = run(STOPS, tmp_path / "data", values=TINY, engine=tiny)
    assert sum(found.at.values()) == STOPS
    assert set(found.ended) <= {"stopped", "finished"}
    assert found.ended["stopped"] > STOPS / 2
    assert {"queued", "denoising"} <= set(found.at)
    assert found.most == 1
    assert max(found.steps) <= 1


def test_a_stop_reaches_the_drawing_before_the_disk(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    written, stop = threading.Event(), tiny_queue._store.stop

    def slow(job: str) -> object:
        assert written.wait(60)
        return stop(job)

    monkeypatch.setattr(tiny_queue._store, "stop", slow)
    device = Device()
    with device.watched(tiny_queue.engine):
        following = tiny_queue.start(tiny_queue.engine.check(TINY | {"steps": 60}), Owner("A"), "detached")
        gate.wait()
        attempt = following.tracked.attempt if following.tracked else None
        assert attempt is not None
        stopping = threading.Thread(target=following.stop)
        stopping.start()
        until(lambda: attempt.is_set)
        gate.open()
        until(lambda: device.ended[following.job.id])
        assert not written.is_set()
        assert device.steps[following.job.id] == 2
        written.set()
        stopping.join()
    assert following.result().phase == "stopped"
