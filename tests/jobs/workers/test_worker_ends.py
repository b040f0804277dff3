"""A worker process ends with its server, whichever way that goes, and leaves nothing behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.engine import Engine
from pipeline.errors import WorkerDied
from pipeline.run import Cancel
from tests.jobs.workers.real_workers import LONG, a_worker, at_step, draw, lives, ready, until
from tests.support import programs
from tests.support.steps import Steps
from tests.support.tiny import SMALL


def test_a_worker_dies_with_its_parent(engine: Engine, steps: Steps, tmp_path: Path) -> None:
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
    job = engine.check(SMALL | LONG).model_dump_json()
    # The parent is forked; the worker is one that Python starts.
    parent = programs.start_code(script, tmp_path, job, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    until(lambda: not lives(pid))


@pytest.mark.usefixtures("forked")
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
