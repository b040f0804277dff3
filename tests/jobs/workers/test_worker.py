"""A worker process draws what this process would, and takes nothing down with it: real ones, on the embedded
model.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from jobs.workers import process
from jobs.workers.process import WorkerProcess
from pipeline.engine import Engine
from pipeline.errors import WorkerDied
from tests.jobs.workers.real_workers import (
    LONG,
    a_worker,
    at_its_start,
    at_step,
    draw,
    drawn_by,
    ready,
    until,
    workers,
)
from tests.support.steps import Steps
from tests.support.tiny import SMALL, pixels


@dataclass(frozen=True)
class Shared:
    """One worker, with a spare, for the tests that leave it alive or see it come again: each start takes
    seconds. Its first processes didn't come up; what the worker said once one had ended."""

    worker: WorkerProcess
    reason: str
    ready: bool


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
