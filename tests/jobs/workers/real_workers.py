"""What the tests of worker processes share: real ones, and what they draw."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.workers.process import WorkerProcess
from pipeline.devices.threads import start_thread
from pipeline.engine import Engine, EngineSpec
from pipeline.events import Event
from pipeline.executors.executor import Executor
from pipeline.request import Job
from pipeline.run import Drawing
from tests import python_path
from tests.support.tiny import ROOT, SMALL

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
