"""A thread that the system refuses to start costs one job, in words, and never the device."""

from __future__ import annotations

import contextvars
import multiprocessing
import subprocess
import threading
from collections.abc import Callable

import pytest
from pipeline.devices.line import Line

from jobs.queue import Queue
from jobs.workers.launch import launch
from jobs.workers.worker import Worker
from pipeline.devices.serial_thread import Hand
from pipeline.devices.threads import start_thread
from pipeline.engine import Engine
from pipeline.errors import Busy
from tests.jobs.queueing import ANN, BEN, Make, job, until
from tests.support.tiny import SMALL

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


@pytest.mark.parametrize("name", ["drawing", "draws", "previews"])
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
    assert len(tiny._lines["cpu"]) == 0
    assert event.preview is not None


def test_an_engine_whose_thread_did_not_start_has_given_back_its_place(tiny: Engine, refuse: Refuse) -> None:
    asked = tiny.check({"prompt": "a fox", "model": "tiny"})
    refuse("drawing")
    with pytest.raises(Busy, match="threads"):
        tiny.start(asked)
    assert tiny.find(asked.id) is None
    refuse("")
    assert tiny.start(asked).result().phase == "finished"


def test_a_lent_job_whose_thread_did_not_start_fails_in_words(
    tiny: Engine, make: Make, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "line", lambda _: "zerogpu")
    tiny._lines["zerogpu"] = Line(20, 4)
    queue = make()
    refuse("queue")
    event = queue.start(job(tiny), ANN).result()
    assert event.phase == "failed"
    assert event.error is not None and "threads" in event.error
    refuse("")
    assert queue.start(job(tiny, seed=8), ANN).result().phase == "finished"


def test_a_download_whose_thread_did_not_start_keeps_nobody_waiting(
    tiny: Engine, make: Make, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make()
    monkeypatch.setattr(tiny, "fetched", lambda _: False)
    refuse("download")
    assert queue.start(job(tiny), ANN).result().phase == "finished"
    assert not queue._downloads.holds("tiny")


def test_a_preload_whose_thread_did_not_start_is_told_as_failed(engine: Engine, refuse: Refuse) -> None:
    refuse("preload")
    with pytest.raises(Busy, match="threads"):
        engine.preload("sketch")
    coming = engine.preloads.of("sketch")
    assert coming is not None and coming["phase"] == "failed" and "threads" in coming["error"]
    refuse("")
    engine.preload("sketch").join()
    assert engine.preloads.of("sketch") is None
    assert engine.start(engine.check(SMALL)).result().phase == "finished"


def test_a_hand_whose_thread_did_not_start_begins_with_the_next_call(refuse: Refuse) -> None:
    hand, done = Hand("a hand"), []
    refuse("a hand")
    with pytest.raises(Busy):
        hand.start(done.append, 1)
    refuse("")
    hand.do(done.append, 2)
    assert done == [2], "what its caller was refused isn't done later"


def test_a_worker_that_can_not_follow_a_drawing_ends_it_says_so_and_draws_the_next(
    tiny: Engine, refuse: Refuse
) -> None:
    ours, its = multiprocessing.Pipe()
    worker, asked = Worker(tiny, its), job(tiny, steps=40)
    refuse("tells")
    worker._draw(asked)
    told = ours.recv()
    assert told.job == asked.id and told.changes["phase"] == "failed" and "threads" in told.changes["error"]
    refuse("")
    assert tiny.start(job(tiny, seed=8)).result().phase == "finished"
    until(lambda: tiny.find(asked.id) is None)


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
