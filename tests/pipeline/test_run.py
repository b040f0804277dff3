"""A run's events and its flag: one end and nothing after it, in whichever threads, and a stop that nobody
misses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.engine import Engine
from pipeline.errors import DrawingFailed, Stopped, WorkerDied
from pipeline.events import Event
from pipeline.request import Job
from pipeline.run import Cancel, Run
from tests.support.tiny import SMALL

NAMED = ("Sketch", "https://example.org/licence")


@pytest.fixture
def job(engine: Engine) -> Job:
    return engine.check(SMALL)


def test_events_come_one_at_a_time_in_their_order_and_none_after_the_last(job: Job) -> None:
    seen: list[Event] = []
    inside = threading.Lock()

    def emit(event: Event) -> None:
        assert inside.acquire(blocking=False), "two at a time"
        seen.append(event)
        inside.release()

    for _ in range(20):
        seen.clear()
        run = Run(job, emit, Cancel())
        with ThreadPoolExecutor(8) as threads:
            for number in range(100):
                threads.submit(run.update, phase="denoising", step=number)
            threads.submit(run.finish, "finished")
            for number in range(100):
                threads.submit(run.update, phase="denoising", step=number)
        assert [event.last for event in seen] == [False] * (len(seen) - 1) + [True]
        assert run.latest is seen[-1]


@pytest.mark.parametrize(
    ("error", "phase", "code"),
    [
        (None, "finished", None),
        (Stopped(), "stopped", None),
        (WorkerDied("Gone."), "failed", "worker_died"),
        (KeyError("a prompt"), "failed", "drawing_failed"),
    ],
)
def test_however_a_run_ends_its_last_event_says_so(
    job: Job, error: Exception | None, phase: str, code: str | None
) -> None:
    seen: list[Event] = []
    run = Run(job, seen.append, Cancel())
    with run.concluded(*NAMED):
        if error is not None:
            raise error
    assert [(event.phase, event.code) for event in seen] == [(phase, code)]


def test_a_run_that_the_process_ends_has_an_end_too(job: Job) -> None:
    seen: list[Event] = []
    run = Run(job, seen.append, Cancel())
    with pytest.raises(KeyboardInterrupt), run.concluded(*NAMED):
        raise KeyboardInterrupt
    assert [(event.phase, event.code) for event in seen] == [("failed", DrawingFailed.code)]


def test_what_a_flag_calls_is_called_once_and_only_within_its_block() -> None:
    calls: list[str] = []
    cancel = Cancel()
    with cancel.calling(lambda: calls.append("left")):
        pass
    with cancel.calling(lambda: calls.append("inside")):
        cancel.set()
        cancel.set()
    with cancel.calling(lambda: calls.append("late")):
        assert calls == ["inside", "late"]
    assert calls == ["inside", "late"]
    with pytest.raises(Stopped):
        cancel.raise_if_cancelled()


def test_a_flag_is_missed_by_nobody_who_begins_to_wait_while_it_is_set() -> None:
    for _ in range(300):
        cancel, called = Cancel(), threading.Event()
        setter = threading.Thread(target=cancel.set)
        setter.start()
        with cancel.calling(called.set):
            assert called.wait(60)
        setter.join()


def test_a_flag_may_be_set_from_what_it_calls_and_from_the_thread_that_emits(job: Job) -> None:
    cancel = Cancel()
    set_again: Callable[[], None] = cancel.set
    run = Run(job, lambda _: cancel.set(), cancel)
    with cancel.calling(set_again):
        run.update(phase="loading")
    with pytest.raises(Stopped):
        run.raise_if_cancelled()
