"""A worker process draws what this process would, and takes nothing down with it: real ones, on the embedded
model. What kills one from within, a bad GPU, is put into the process by a `sitecustomize` of the test's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from jobs.data_dir.folder import DataFolder
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.store.models import Owner
from jobs.workers import process
from jobs.workers.executors import executors
from jobs.workers.launch import launch
from jobs.workers.process import WorkerProcess
from pipeline.devices.threads import start_thread
from pipeline.drawing import Drawing
from pipeline.engine import Engine, EngineSpec
from pipeline.errors import WorkerDied
from pipeline.events import Event
from pipeline.executors.executor import Executor
from pipeline.library_errors import explained
from pipeline.request import Job
from pipeline.run import Cancel
from tests import python_path
from tests.support.steps import Steps
from tests.support.tiny import ROOT, SMALL, entry, models_yaml, pixels, tiny_sd3

SPEC = EngineSpec(ROOT / "models.yaml")
LONG = {"steps": 60}
"""Changes to SMALL: of a drawing that a test holds at a step."""


def until(condition: Callable[[], Any], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """An orphan that has ended stays a zombie where nothing collects it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def a_worker(spec: EngineSpec = SPEC, **options: Any) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(spec, **options)
    try:
        yield worker
    finally:
        worker.close()
        until(lambda: not worker._thread.is_alive())


def workers() -> set[int]:
    """Worker processes of this one, by their process ids."""
    return {
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "jobs.workers.worker" in child.cmdline()
    }


def at_its_start(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> Path:
    """Has the workers that start from now on run this code first: the file that holds it."""
    file = folder / "sitecustomize.py"
    file.write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", python_path(str(folder)))
    return file


@dataclass(frozen=True)
class Shared:
    """One worker, with a spare, for the tests that leave it alive or see it come again: each start takes
    seconds. Its first processes didn't come up; what the worker said once one had ended."""

    worker: WorkerProcess
    reason: str
    ready: bool


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    steps = Steps(tmp_path_factory.mktemp("held") / "steps")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in steps.environment.items():
            patch.setenv(name, value)
        yield steps


@pytest.fixture
def steps(held: Steps) -> Iterator[Steps]:
    """The steps of the workers of these tests."""
    yield held
    held.go_on()


@pytest.fixture(scope="module")
def shared(held: Steps, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("down")
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            dies = at_its_start(patch, folder, "import os; os._exit(3)")
            worker = stack.enter_context(a_worker(spare=True))
            said = "", True

            def ended() -> bool:
                nonlocal said  # between two of them it says for a moment that one has just ended, and no more
                said = worker.capabilities().reason, ready(worker)
                return worker.capabilities().restarts > 0 and "status" in said[0]

            until(ended)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(process, "STEADY", 0.0)
        dies.unlink()
        until(lambda: ready(worker))
        yield Shared(worker, *said)
    assert not workers(), "the spare ends with the worker"


@pytest.fixture
def worker(shared: Shared) -> WorkerProcess:
    until(lambda: ready(shared.worker))
    return shared.worker


def draw(worker: Executor, engine: Engine, **values: Any) -> Drawing:
    """Has the worker draw, in a thread of its own."""
    return drawn_by(worker, engine.check(SMALL | values))


def drawn_by(worker: Executor, job: Job) -> Drawing:
    drawing = Drawing(job)
    start_thread("draws for a test", worker.run, job, drawing.publish, drawing.cancel)
    return drawing


def ready(worker: Executor) -> bool:
    return not worker.capabilities().reason


def at_step(drawing: Drawing, step: int) -> Event:
    return next(event for event in drawing.events() if event.step >= step or event.last)


def test_a_worker_that_does_not_come_up_says_why_and_is_started_again(
    shared: Shared, worker: WorkerProcess, engine: Engine
) -> None:
    assert "status 3" in shared.reason
    assert not shared.ready
    assert ready(worker)
    assert draw(worker, engine).result().phase == "finished"


def test_a_worker_draws_the_very_pixels_that_this_process_draws(
    worker: WorkerProcess, engine: Engine
) -> None:
    there = draw(worker, engine, images=2).result()
    here = engine.start(engine.check(SMALL | {"images": 2})).result()
    assert there.phase == "finished", there.error
    assert len(there.images) == 2
    for one, other in zip(there.images, here.images, strict=True):
        assert np.array_equal(pixels(one), pixels(other))
    assert there.seconds > 0
    assert there.plan == here.plan
    assert worker.capabilities().resident == ("sketch",)


def test_each_steps_event_and_preview_crosses(worker: WorkerProcess, engine: Engine, steps: Steps) -> None:
    steps.hold(1)
    events = []
    for event in draw(worker, engine, steps=20).events():
        events.append(event)
        steps.hold(event.step + 1)
    seen = {event.step: event.preview for event in events if event.phase == "denoising" and event.step}
    assert list(seen) == list(range(1, 21))
    assert len(set(seen.values())) == 20
    assert (events[-1].phase, events[-1].step) == ("finished", 20)


def test_by_the_last_event_it_has_told_what_it_has(
    worker: WorkerProcess, engine: Engine, steps: Steps
) -> None:
    steps.hold(1)
    drawing = draw(worker, engine, **LONG)
    drawing.stop()
    drawing.result()
    assert ready(worker)


def test_a_stop_ends_a_workers_drawing_within_a_step_and_keeps_its_preview(
    worker: WorkerProcess, engine: Engine, steps: Steps
) -> None:
    steps.hold(3)
    drawing = draw(worker, engine, **LONG)
    at_step(drawing, 3)
    drawing.stop()
    last = drawing.result()
    assert last.phase == "stopped"
    assert last.step == 4  # the one that was begun
    assert last.preview


def test_what_can_not_be_drawn_there_fails_in_words(worker: WorkerProcess, engine: Engine) -> None:
    job = engine.check(SMALL)
    last = drawn_by(worker, job.model_copy(update={"width": 129})).result()
    assert last.phase == "failed"
    assert ready(worker)


def test_a_worker_is_deaf_to_what_a_terminal_or_a_service_manager_sends(
    worker: WorkerProcess, engine: Engine
) -> None:
    drawing = draw(worker, engine)
    assert worker.pid
    for sent in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, sent)
    assert drawing.result().phase == "finished"
    assert os.getsid(worker.pid) != os.getsid(0)


def test_a_killed_worker_fails_its_drawing_by_name_and_the_next_one_draws(
    worker: WorkerProcess, engine: Engine, steps: Steps
) -> None:
    steps.hold(3)
    until(lambda: len(workers()) == 2)
    drawing, killed, restarts = draw(worker, engine, **LONG), worker.pid, worker.capabilities().restarts
    at_step(drawing, 3)
    assert killed
    spares = workers() - {killed}
    os.kill(killed, signal.SIGKILL)
    steps.go_on()
    last = drawing.result()
    assert (last.phase, last.code) == ("failed", WorkerDied.code)
    assert "SIGKILL" in str(last.error)
    assert "memory" in str(last.error)
    assert last.preview
    assert (ready(worker), worker.capabilities().resident) == (False, ())
    until(lambda: ready(worker))
    assert worker.capabilities().restarts == restarts + 1
    assert {worker.pid} == spares, "the one that stood by took its place"
    assert draw(worker, engine).result().phase == "finished"


def test_ending_a_drawing_that_does_not_listen_takes_its_worker_and_says_so(
    worker: WorkerProcess, engine: Engine, steps: Steps
) -> None:
    steps.hold(1)
    drawing = draw(worker, engine, **LONG)
    at_step(drawing, 1)
    assert worker.pid
    os.kill(worker.pid, signal.SIGSTOP)
    drawing.stop()
    assert worker.kill()
    last = drawing.result()
    assert (last.phase, last.code) == ("failed", WorkerDied.code)
    assert "didn't listen" in str(last.error)
    assert "memory" not in str(last.error)


def test_a_worker_dies_with_its_parent(engine: Engine, steps: Steps) -> None:
    steps.hold(1)
    script = (
        "import pathlib, sys, time\n"
        "from jobs.workers.process import WorkerProcess\n"
        "from pipeline.engine import EngineSpec\n"
        "from pipeline.request import Job\n"
        "from pipeline.run import Cancel\n"
        "worker = WorkerProcess(EngineSpec(pathlib.Path('models.yaml')))\n"
        "while worker.capabilities().reason: time.sleep(0.02)\n"
        "def emit(event):\n"
        "    if event.step == 1: print(worker.pid, flush=True)\n"
        "worker.run(Job.model_validate_json(sys.argv[1]), emit, Cancel())\n"
    )
    command = [sys.executable, "-c", script, engine.check(SMALL | LONG).model_dump_json()]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    until(lambda: not lives(pid))


def test_closing_leaves_no_process_and_ends_what_was_drawn(engine: Engine, steps: Steps) -> None:
    steps.hold(1)
    with a_worker() as worker:
        until(lambda: ready(worker))
        drawing, pid = draw(worker, engine, **LONG), worker.pid
        at_step(drawing, 1)
        worker.close()
        last = drawing.result()
        assert (last.phase, last.code) == ("failed", WorkerDied.code)
        assert "server is ending" in str(last.error)
        with pytest.raises(WorkerDied, match="ended"):
            worker.run(engine.check(SMALL), lambda _: None, Cancel())
    assert pid
    assert not lives(pid)
    assert worker.capabilities().restarts == 0


def test_a_worker_that_is_closed_while_it_starts_is_gone_too() -> None:
    with a_worker() as worker:
        until(lambda: worker.pid)
        pid = worker.pid
    assert pid
    assert not lives(pid)


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
def ill(gate: Path) -> Iterator[WorkerProcess]:
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
def test_how_far_a_workers_preloads_are_is_seen_where_models_are_listed(tmp_path: Path) -> None:
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
