"""A GPU that a worker process loses, a model that it can't load, and which GPU it sees. What kills one from
within, a bad GPU, is put into the process by a `sitecustomize` of the test's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from jobs.data_dir.folder import DataFolder
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.store.models import Owner
from jobs.workers.executors import executors
from jobs.workers.launch import launch
from jobs.workers.process import WorkerProcess
from pipeline.engine import Engine, EngineSpec
from pipeline.errors import WorkerDied
from pipeline.library_errors import explained
from tests.jobs.workers.real_workers import a_worker, at_its_start, draw, ready, until
from tests.support.tiny import SMALL, entry, models_yaml, tiny_sd3


@pytest.mark.parametrize("error", [torch.AcceleratorError, RuntimeError])
def test_only_what_a_process_does_not_recover_from_counts_as_a_lost_gpu(error: type[Exception]) -> None:
    for said, code in (
        ("CUDA error: an illegal memory access was encountered", WorkerDied.code),
        ("CUDA error: invalid argument", "drawing_failed"),
    ):
        with pytest.raises(Exception) as caught, explained("Large", ""):
            raise error(said)
        assert getattr(caught.value, "code", "") == code


ILL = """
import time
from pathlib import Path
import pipeline.sampling.sample
from pipeline.weights.residency import Residency
place = Residency._place
def waits(*args, **kwargs):
    while not Path({gate!r}).exists():
        time.sleep(0.01)
    return place(*args, **kwargs)
def fails(*_):
    raise RuntimeError("CUDA error: device-side assert triggered\\nCUDA kernel errors might be…")
Residency._place = waits
pipeline.sampling.sample._decode = fails
"""
"""A load that takes until a test lets it end, and then a stand-in for a GPU, which the test machine lacks, in
the state that a failed assertion leaves it in."""


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file whose being there lets the ill worker load."""
    return tmp_path_factory.mktemp("ill") / "gate"


@pytest.fixture(scope="module")
def ill(forked: None, gate: Path) -> Iterator[WorkerProcess]:
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            at_its_start(patch, gate.parent, ILL.format(gate=str(gate)))
            worker = stack.enter_context(a_worker())
            until(lambda: ready(worker))
        yield worker


def test_a_stop_while_a_worker_loads_ends_the_drawing_at_once(
    ill: WorkerProcess, gate: Path, engine: Engine
) -> None:
    drawing = draw(ill, engine)
    next(event for event in drawing.events() if event.phase == "loading")
    drawing.stop()
    assert drawing.result().phase == "stopped"
    assert not gate.exists()


def test_a_gpu_that_is_lost_fails_the_drawing_by_its_name_and_brings_a_new_worker(
    ill: WorkerProcess, gate: Path, engine: Engine
) -> None:
    gate.touch()
    until(lambda: ready(ill))
    drawing, lost = draw(ill, engine), ill.pid
    last = drawing.result()
    assert (last.phase, last.code) == ("failed", WorkerDied.code)
    assert "(CUDA error: device-side assert triggered)" in str(last.error)
    assert last.preview
    assert not ready(ill)
    until(lambda: ill.pid not in (None, lost))  # the test of the killed one shows that it then draws


@pytest.mark.process
def test_how_far_a_workers_preloads_are_is_seen_where_models_are_listed(forked: None, tmp_path: Path) -> None:
    good, bad = tiny_sd3(tmp_path / "good"), tiny_sd3(tmp_path / "bad")
    for file in (bad / "transformer").glob("*.safetensors"):
        file.write_bytes(b"no weights")
    spec = EngineSpec(models_yaml(tmp_path, entry(bad, "bad"), entry(good, "good")))
    engine = spec.engine()
    drawn = executors(engine, spec, workers=1)
    queue = Queue(engine, DataFolder(tmp_path / "data"), drawn, Limits(), ("bad", "good"))
    try:
        until(lambda: drawn["cpu"][0].capabilities().resident == ("good",))

        def coming() -> dict[str, Any]:
            return {model["id"]: model["coming"] for model in queue.models()}

        until(lambda: coming()["good"] is None)
        assert coming()["bad"]["phase"] == "failed"
        assert "bad/transformer" in coming()["bad"]["error"]
        asked = engine.check(SMALL | {"model": "good", "width": 64, "height": 64})
        assert queue.start(asked, Owner("user:ann")).result().images
    finally:
        queue.close()


@pytest.mark.parametrize(("seen", "expected"), [(None, "1"), ("4,7", "7"), ("GPU-5f, GPU-9a", "GPU-9a")])
def test_each_worker_sees_one_of_the_gpus_that_the_server_sees(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, expected: str
) -> None:
    # Stands in for two GPUs, which the test machine lacks.
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    launched = launch(1)
    process = psutil.Process(launched.process.pid)
    until(process.environ)  # there is none for an instant, while it begins
    environment = process.environ()
    launched.process.kill()
    launched.end()
    assert environment["CUDA_VISIBLE_DEVICES"] == expected
