"""What breaks, the disk or what draws, fails one job in words; and what is told of each that ended."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from diffusers import SD3Transformer2DModel

from jobs.lifecycle.tracked_job import TrackedJob
from jobs.queue import Queue
from jobs.store.event_log import LogWriter
from jobs.store.sqlite import SqliteStore
from jobs.telemetry.metrics import Now
from jobs.workers.executors import executors
from pipeline.engine import Engine
from pipeline.errors import DiskFull, StoreError, WorkerDied
from pipeline.events import Event
from pipeline.executors.executor import Capabilities, Executor
from pipeline.request import Job
from pipeline.run import Cancel, Emit, Progress
from tests.jobs.queueing import ANN, Make, counts, job, until
from tests.support.steps import Steps

# What breaks.


def test_a_full_disk_fails_the_job_in_words_and_the_next_one_is_drawn(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(LogWriter, "append", full)
        event = tiny_queue.start(job(tiny), ANN).result()
    assert (event.phase, event.code, event.images) == ("failed", "disk_full", ())
    assert event.error is not None and "No space left on device" in event.error
    assert tiny_queue.start(job(tiny, seed=8), ANN).result().phase == "finished"


def test_an_end_that_a_full_disk_kept_from_being_written_down_is_written_later(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> bool:
        raise DiskFull("The disk is full.")

    real = SqliteStore.finish
    monkeypatch.setattr(SqliteStore, "finish", full)
    first = tiny_queue.start(job(tiny), ANN)
    assert first.result().code == "disk_full"
    monkeypatch.setattr(SqliteStore, "finish", real)
    # Its person isn't barred by a drawing that seems to be running.
    assert tiny_queue.start(job(tiny, seed=8), ANN).result().phase == "finished"
    record = tiny_queue._store.get(first.job.id)
    assert record is not None and record.state == "finished"
    found = tiny_queue.find(first.job.id)
    assert found is not None and len(found.result().images) == 1


class Broken:
    """Stands in for what draws, in ways that the real ones mustn't: `do` is called to draw."""

    at_once = 1

    def __init__(self, real: Executor, do: Callable[[Job], Event]) -> None:
        self._real, self._do, self.broken = real, do, True
        self.reason = ""

    def capabilities(self) -> Capabilities:
        return Capabilities(reason=self.reason, restarts=3)

    def on_change(self, changed: Callable[[], None]) -> None: ...

    def gpu_memory(self) -> None: ...

    def run(self, one: Job, emit: Emit, cancel: Cancel) -> Event:
        return self._do(one) if self.broken else self._real.run(one, emit, cancel)

    def load(self, model: str, progress: Progress) -> None: ...

    def kill(self) -> bool:
        return False

    def close(self) -> None: ...

    def join(self, seconds: float) -> None: ...


def test_what_draws_may_raise_anything_and_the_next_job_is_drawn(tiny: Engine, make: Make) -> None:
    def raises(_: Job) -> Event:
        raise RuntimeError("a secret path")

    executor = Broken(executors(tiny)["cpu"][0], raises)
    queue = make(executor)
    event = queue.start(job(tiny), ANN).result()
    assert (event.phase, event.code) == ("failed", "drawing_failed")
    assert event.error is not None and "secret" not in event.error
    executor.broken = False
    assert queue.start(job(tiny, seed=8), ANN).result().phase == "finished"
    assert queue.not_alive() == ""
    assert counts(queue)["stepwise_worker_restarts_total", "cpu"] == 3


def test_a_server_whose_one_worker_draws_is_ready_and_one_whose_worker_is_gone_is_not(
    tiny: Engine, make: Make
) -> None:
    executor = Broken(executors(tiny)["cpu"][0], Event)
    queue = make(executor)
    assert queue.not_ready() == ""
    executor.reason = "The process that draws is starting."
    assert queue.not_ready() == "The process that draws is starting."


def test_an_end_that_goes_wrong_fails_its_job_and_the_next_one_is_drawn(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as broken:
        broken.setattr(TrackedJob, "as_shown", wrong)
        assert tiny_queue.start(job(tiny), ANN).result().phase == "failed"
    assert tiny_queue.start(job(tiny, seed=8), ANN).result().phase == "finished"


def test_a_job_that_takes_its_worker_down_twice_is_set_aside(tiny: Engine, make: Make) -> None:
    def dies(one: Job) -> Event:
        return Event(one, "failed", error="The worker was killed.", code=WorkerDied.code)

    queue = make(Broken(executors(tiny)["cpu"][0], dies))
    event = queue.start(job(tiny), ANN).result()
    assert (event.phase, event.code) == ("failed", "worker_died")
    assert event.error is not None and "set aside" in event.error
    assert counts(queue)["stepwise_attempts_lost_total", "worker"] == 2


def test_while_nothing_can_be_claimed_the_server_is_not_ready_and_recovers_by_itself(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.scheduling.dispatch.RETRY", 0.01)
    for error in (StoreError("The file is damaged."), ValueError("unforeseen")):

        def fails(*_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(SqliteStore, "claim", fails)
            one = tiny_queue.start(job(tiny), ANN)
            until(tiny_queue.not_ready)
            assert tiny_queue.not_alive() == ""
        assert one.result().phase == "finished"
        assert tiny_queue.not_ready() == ""


def test_a_thread_that_ended_is_told_of(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unforeseen(BaseException):
        """Stands in for what no `except Exception` holds."""

    def dies(*_: Any) -> None:
        raise Unforeseen

    monkeypatch.setattr("threading.excepthook", lambda _: None)
    monkeypatch.setattr(tiny_queue._jobs, "claim", dies)
    tiny_queue.start(job(tiny), ANN)
    until(tiny_queue.not_alive)
    assert tiny_queue.not_alive() == "a thread has ended that gives out jobs: queue cpu"


# What is told of it.


def test_a_library_that_quotes_the_prompt_in_its_error_does_not_bring_it_into_the_log(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def quotes(*_: Any, **__: Any) -> None:
        raise ValueError("can't read 'a secret fox'")

    monkeypatch.setattr(SD3Transformer2DModel, "forward", quotes)
    one = tiny_queue.start(job(tiny), ANN)
    assert one.result().code == "drawing_failed"
    assert "ValueError: can't read '…'" in caplog.text
    assert "secret fox" not in caplog.text and one.job.id not in caplog.text
    assert counts(tiny_queue)["stepwise_errors_total", "drawing_failed"] == 1


@pytest.mark.parametrize("prompts", [False, True])
def test_each_job_that_ends_is_one_line_of_json_with_its_prompt_only_where_that_is_wanted(
    tiny: Engine, make: Make, caplog: pytest.LogCaptureFixture, prompts: bool
) -> None:
    queue = make(log_prompts=prompts)
    with caplog.at_level(logging.INFO, "stepwise.jobs"):
        one = queue.start(job(tiny), ANN)
        one.result()
        until(lambda: [record for record in caplog.records if record.name == "stepwise.jobs"])
    (text,) = [record.getMessage() for record in caplog.records if record.name == "stepwise.jobs"]
    line = json.loads(text)
    assert (line["model"], line["outcome"], line["attempt"], line["line"]) == ("tiny", "finished", 1, "cpu")
    assert line["job"] == one.job.id[:8] and one.job.id not in text and "ann" not in line["owner"]
    assert line["wait"] >= 0 and line["seconds"] > 0
    assert ("secret fox" in text) is prompts


def test_the_seconds_of_drawings_steps_and_waits_are_counted_and_a_model_that_had_to_be_loaded_is(
    tiny: Engine, tiny_queue: Queue, steps_here: Steps
) -> None:
    for seed in (1, 2):
        steps_here.hold(2)
        one = tiny_queue.start(job(tiny, seed=seed, images=2), ANN)
        until(lambda one=one: one.latest.step == 2)
        steps_here.go_on()
        one.result()
    until(lambda: counts(tiny_queue)["stepwise_jobs_ended_total", "tiny", "finished"] == 2)
    seen = counts(tiny_queue)
    assert seen["stepwise_drawing_seconds_count", "tiny"] == 2
    assert seen["stepwise_wait_seconds_count", "tiny"] == 2
    assert 0 < seen["stepwise_step_seconds_count", "tiny"] <= 16
    assert seen["stepwise_model_changes_total", "tiny"] == 1
    assert b"secret fox" not in tiny_queue.metrics.text()


def test_each_gpus_memory_is_told_with_its_number_and_none_of_one_that_nobody_can_ask() -> None:
    class Draws:
        """Stands in for a worker on a GPU, which the test machine lacks."""

        at_once = 1

        def __init__(self, memory: tuple[int, int] | None) -> None:
            self._memory = memory

        def capabilities(self) -> Capabilities:
            return Capabilities()

        def gpu_memory(self) -> tuple[int, int] | None:
            return self._memory

    several: list[Any] = [Draws((30, 80)), Draws(None), Draws((50, 80))]
    families = {one.name: one for one in Now({}, {"cuda": several}, lambda: []).collect()}
    told = {
        name: {sample.labels["gpu"]: sample.value for sample in families[name].samples}
        for name in ("stepwise_gpu_memory_allocated_bytes", "stepwise_gpu_memory_total_bytes")
    }
    assert list(told.values()) == [{"0": 30, "2": 50}, {"0": 80, "2": 80}]
