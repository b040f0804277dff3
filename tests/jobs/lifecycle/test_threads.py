"""A thread that the system refuses to start costs one job, in words, and never the device."""

from __future__ import annotations

import contextvars
import subprocess
import threading
from collections.abc import Callable

import pytest

from jobs.queue import Queue
from jobs.workers.launch import launch
from pipeline.devices.serial_thread import SerialThread
from pipeline.devices.threads import start_thread
from pipeline.engine import Engine
from pipeline.errors import Busy
from tests.jobs.queueing import ANN, BEN, Make, job

Refuse = Callable[[str], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Has the system refuse every thread whose name begins so; none for an empty one."""
    start, refused = threading.Thread.start, [""]

    def limited(thread: threading.Thread) -> None:
        if refused[0] and thread.name.startswith(refused[0]):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)

    def named(name: str) -> None:
        refused[0] = name

    return named


@pytest.mark.parametrize("name", ["draws", "previews"])
def test_a_device_whose_thread_did_not_start_draws_the_next_job(
    tiny: Engine, tiny_queue: Queue, refuse: Refuse, name: str
) -> None:
    refuse(name)
    first = tiny_queue.start(job(tiny), ANN).result()
    if name == "previews":  # a picture needs none
        assert first.phase == "finished"
    else:
        assert first.phase == "failed"
        assert first.error is not None and "threads" in first.error and "Try again" in first.error
    refuse("")
    event = tiny_queue.start(job(tiny, seed=8), BEN).result()
    assert event.phase == "finished"
    assert event.preview is not None


def test_an_engine_whose_thread_did_not_start_says_so_and_draws_the_next(
    tiny: Engine, refuse: Refuse
) -> None:
    asked = tiny.check({"prompt": "a fox", "model": "tiny"})
    refuse("drawing")
    with pytest.raises(Busy, match="threads"):
        tiny.start(asked)
    refuse("")
    assert tiny.start(asked).result().phase == "finished"


def test_a_download_whose_thread_did_not_start_keeps_nobody_waiting(
    tiny: Engine, make: Make, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make()
    monkeypatch.setattr(tiny, "fetched", lambda _: False)
    refuse("download")
    assert queue.start(job(tiny), ANN).result().phase == "finished"
    assert not queue._downloads.is_coming("tiny")


def test_a_serial_thread_whose_thread_did_not_start_begins_with_the_next_call(refuse: Refuse) -> None:
    thread, done = SerialThread("one by one"), []
    refuse("one by one")
    with pytest.raises(Busy):
        thread.submit(done.append, 1)
    refuse("")
    thread.submit(done.append, 2).result()
    assert done == [2], "what its caller was refused isn't done later"


def test_a_worker_whose_pipe_can_not_be_opened_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def noted(*args: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(["sleep", "600"]))
        return started[-1]

    def none_left(_: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("jobs.workers.launch.subprocess.Popen", noted)
    monkeypatch.setattr("jobs.workers.launch.os.dup", none_left)
    with pytest.raises(OSError, match="Too many"):
        launch(0)
    assert started[0].poll() is not None


def test_a_thread_runs_in_its_starters_context_where_that_is_wanted() -> None:
    visitor: contextvars.ContextVar[str] = contextvars.ContextVar("visitor", default="nobody")
    visitor.set("ann")
    seen: list[str] = []
    for wanted in (True, False):
        start_thread("sees", lambda: seen.append(visitor.get()), in_context=wanted).join()
    assert seen == ["ann", "nobody"]
