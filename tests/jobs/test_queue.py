"""The queue draws each job once, in turns, whatever happens meanwhile to its server and its readers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import SD3Transformer2DModel

from jobs.eta.estimator import Estimator
from jobs.lifecycle.recovery import MOST_ATTEMPTS
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.store.event_log import LogWriter
from jobs.store.log_names import log_path
from jobs.store.models import Choice, Owner, Record
from jobs.store.sqlite import SqliteStore
from pipeline.engine import Engine
from pipeline.errors import Busy, InvalidRequest
from pipeline.executors.executor import Capabilities
from pipeline.request import Job
from tests.jobs.queueing import ANN, BEN, SOON, Make, counts, job, stopping, until
from tests.support.tiny import hold


class Unready:
    """An executor that never comes to draw."""

    at_once = 1

    def capabilities(self) -> Capabilities:
        return Capabilities(reason="It isn't ready.")

    def on_change(self, changed: Callable[[], None]) -> None: ...

    def close(self) -> None: ...


class Killed:
    """What a server leaves that was killed: its folder, with what it had written down."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "jobs.sqlite")
        self.logs = folder / "events"
        self.logs.mkdir(parents=True, exist_ok=True)

    def drew(self, one: Job, attempts: int = 1) -> Record:
        """It was drawing this, for the so-many-eth time."""
        self.store.add(one, "cpu", ANN, "detached", 50, 20)
        for attempt in range(1, attempts + 1):
            if attempt > 1:
                self.store.requeue(one.id, attempt - 1, lost=True)
            record = self.store.claim("cpu", lambda *_: Choice(one.id))
        assert record is not None
        return record


@pytest.fixture
def killed(tmp_path: Path) -> Killed:
    return Killed(tmp_path / "data")


# A server that ends.


def test_a_job_that_was_being_drawn_when_its_server_was_killed_gets_the_picture_it_would_have_had(
    tiny: Engine, make: Make, killed: Killed
) -> None:
    undisturbed = tiny.start(job(tiny)).result()
    running, waiting = job(tiny), job(tiny, seed=8)
    killed.drew(running)
    killed.store.add(waiting, "cpu", BEN, "detached", 50, 20)
    killed.store.close()
    queue = make()
    again = queue.find(running.id)
    assert again is not None and again.result().images == undisturbed.images
    other = queue.find(waiting.id)
    assert other is not None and other.result().phase == "finished"
    assert counts(queue)["stepwise_attempts_lost_total", "server"] == 1


def test_a_job_that_had_finished_is_not_drawn_again_though_only_its_log_knew(
    tiny: Engine, make: Make, killed: Killed, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = tiny.start(job(tiny)).result()
    record = killed.drew(finished.job)
    with LogWriter(log_path(killed.logs, record.job.id, record.attempt)) as writer:
        writer.append(finished)
    killed.store.close()
    begun = hold(monkeypatch, SD3Transformer2DModel, "forward", call=-1)
    queue = make()
    found = queue.find(record.job.id)
    assert found is not None and found.result().images == finished.images
    assert queue.start(record.job, ANN).result().images == finished.images
    assert begun.calls == 0


def test_a_job_that_was_begun_three_times_is_not_begun_again_and_says_so(
    tiny: Engine, make: Make, killed: Killed
) -> None:
    record = killed.drew(job(tiny), attempts=3)
    killed.store.close()
    found = make().find(record.job.id)
    assert found is not None
    event = found.result()
    assert (event.phase, event.code) == ("failed", "worker_died")
    assert event.error == "The server ended 3 times while it drew this; it isn't tried again."


def test_servers_that_are_told_to_end_while_they_draw_dont_count_as_ended_by_the_job(
    tiny: Engine, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(tiny)
    for number in range(MOST_ATTEMPTS):
        gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
        queue = make()
        if not number:
            queue.start(one, ANN, "detached")
        gate.wait()
        queue.close()
        gate.open()
        queue._dispatch.join(SOON)  # all servers of this test have the same engine
    store = SqliteStore(tmp_path / "data" / "jobs.sqlite")
    assert store.claim("cpu", lambda *_: Choice(one.id)) is not None  # one that is killed amid it
    store.close()
    found = make().find(one.id)
    assert found is not None and found.result().phase == "finished"


def test_a_server_that_closes_waits_for_the_threads_that_draw_to_come_out_of_their_step(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, queue = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2), make()
    one = queue.start(job(tiny), ANN, "detached")
    gate.wait()
    closing = threading.Thread(target=queue.close, args=(SOON,))
    closing.start()
    assert one.tracked is not None
    attempt = one.tracked.attempt
    assert attempt is not None
    until(lambda: attempt.is_set)
    gate.open()
    closing.join(SOON)
    assert not closing.is_alive()
    assert one.tracked.attempt is None
    assert not [thread for thread in queue._dispatch._threads if thread.is_alive()]
    assert gate.calls == 2


def test_a_job_that_was_just_claimed_when_its_server_is_closed_waits_again(
    tiny: Engine, make: Make, tmp_path: Path
) -> None:
    queue, one = make(Unready()), job(tiny)
    queue.start(one, ANN, "detached")
    assert queue._jobs.claim("cpu", lambda *_: Choice(one.id)) is not None
    queue.close()
    store = SqliteStore(tmp_path / "data" / "jobs.sqlite")
    record = store.get(one.id)
    store.close()
    assert record is not None
    assert (record.state, record.attempt, record.lost) == ("queued", 1, 0)


def test_what_runs_when_a_server_is_closed_is_drawn_by_the_next(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    one = first.start(job(tiny), ANN, "detached")
    gate.wait()
    first.close()
    gate.open()
    first._dispatch.join(SOON)  # both servers of this test have the same engine
    found = make().find(one.job.id)
    assert found is not None and found.result().phase == "finished"


def test_on_a_quiet_server_what_is_past_its_age_is_deleted_by_the_clock(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.scheduling.housekeeping.KEEPING", 0.01)
    queue = make(most_seconds=1.0)
    one = queue.start(job(tiny), ANN)
    assert one.result().phase == "finished"
    until(lambda: queue.find(one.job.id) is None)
    until(lambda: not list(queue.folder.logs.iterdir()))


# Who is drawn, and in which order.


def test_to_drain_is_to_say_whether_there_is_a_picture_to_fetch(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    queue = make()
    queue.start(job(tiny), ANN)
    gate.wait()
    assert queue.drain(0) is False  # it runs still
    running = queue._jobs.running

    def counted() -> object:
        gate.open()  # once the next one counts what runs
        return running()

    monkeypatch.setattr(queue._jobs, "running", counted)
    assert queue.drain(SOON) is True
    assert queue.drain(SOON) is False


def test_a_second_start_with_the_same_id_is_the_same_job(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    one = job(tiny)
    first = tiny_queue.start(one, ANN)
    gate.wait()
    second = tiny_queue.start(one, BEN)
    gate.open()
    assert second.result().images == first.result().images
    calls = gate.calls
    assert tiny_queue.start(one, ANN).result().phase == "finished"
    assert gate.calls == calls
    assert counts(tiny_queue)["stepwise_jobs_ended_total", "tiny", "finished"] == 1


def test_two_persons_take_turns_though_one_came_first_with_several(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    anns = [tiny_queue.start(job(tiny, seed=seed), ANN, "detached") for seed in (1, 2, 3)]
    gate.wait()
    bens = tiny_queue.start(job(tiny, seed=4), BEN, "detached")
    assert counts(tiny_queue)["stepwise_jobs_waiting", "cpu", "tiny"] == 3
    assert counts(tiny_queue)["stepwise_jobs_running", "cpu", "tiny"] == 1
    gate.open()
    for one in (*anns, bens):
        assert one.result().phase == "finished"
    store = tiny_queue._store
    order = [record.job.seed for job, _ in store.ended() if (record := store.get(job)) is not None]
    assert order == [1, 4, 2, 3]


def test_the_first_thing_that_a_job_is_told_is_its_true_place(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    tiny_queue.start(job(tiny), ANN, "detached")
    gate.wait()
    places = [tiny_queue.start(job(tiny, seed=seed), ANN, "detached").latest.position for seed in range(8)]
    assert places == [1, 2, 3, 4, 5, 6, 7, 8]
    assert tiny_queue.start(job(tiny), BEN, "detached").latest.position == 1
    gate.open()


def test_a_job_that_waits_is_stopped_at_once_and_never_drawn(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    running = tiny_queue.start(job(tiny), ANN)
    gate.wait()
    waiting = tiny_queue.start(job(tiny, seed=8), ANN)
    waiting.stop()
    assert waiting.result().phase == "stopped"
    gate.open()
    assert running.result().phase == "finished"
    assert gate.calls == 4
    seen = counts(tiny_queue)
    assert seen["stepwise_stops_total", "waiting"] == 1
    assert seen["stepwise_jobs_ended_total", "tiny", "stopped"] == 1


def test_who_is_refused_is_counted_by_reason_and_told_when_to_come_back(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make(room=2, each=1)
    monkeypatch.setattr(Estimator, "seconds", lambda *_: 5.0)  # stands in for what it learns from drawings
    monkeypatch.setattr(Estimator, "remaining", lambda *_: 12.0)
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    started = [queue.start(job(tiny), ANN)]
    gate.wait()
    started.append(queue.start(job(tiny), ANN))
    until(lambda: started[1].latest.eta is not None)
    with pytest.raises(Busy, match="You have") as refused:
        queue.start(job(tiny), ANN)
    assert refused.value.retry_after == 12
    started.append(queue.start(job(tiny), BEN))
    with pytest.raises(Busy, match="this server takes") as refused:
        queue.start(job(tiny), Owner("user:cat"))
    assert refused.value.retry_after == 12
    with pytest.raises(InvalidRequest):
        queue.check({"prompt": "a fox", "model": "tiny", "steps": 10**6})
    seen = counts(queue)
    for reason in ("too_many", "line_full", "invalid_request"):
        assert seen["stepwise_refusals_total", reason] == 1
    gate.open()
    for one in started:
        one.result()


# What takes too long, and who has gone.


def test_a_job_whose_last_reader_has_gone_ends_when_the_patience_is_over(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make(abandoned=0.3)
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    one = queue.start(job(tiny), ANN, "page")
    kept = queue.start(job(tiny, seed=8), BEN, "detached")
    reader = iter(one.events())
    next(reader)
    gate.wait()
    reader.close()  # type: ignore[attr-defined]
    until(lambda: stopping(one))
    gate.open()
    assert one.result().phase == "stopped"
    assert kept.result().phase == "finished"
    assert counts(queue)["stepwise_stops_total", "running"] == 1


def test_a_drawing_that_takes_too_long_fails_in_words(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make(draw=0.2)
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    one = queue.start(job(tiny), ANN)
    until(lambda: one.tracked is not None and one.tracked.late)
    gate.open()
    event = one.result()
    assert (event.phase, event.code) == ("failed", "late")
    assert event.error is not None and "Try fewer steps" in event.error
    assert counts(queue)["stepwise_errors_total", "late"] == 1


def test_a_drawing_that_outlasts_its_end_makes_the_server_dead_until_it_ends(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.scheduling.housekeeping.PATIENCE", 0.1)
    queue = make()
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    one = queue.start(job(tiny), ANN)
    gate.wait()
    assert queue.not_alive() == ""
    monkeypatch.setattr(queue._housekeeping, "_limits", Limits(draw=0.2))
    until(lambda: "can't be ended" in queue.not_alive())
    until(lambda: one.tracked is not None and one.tracked.late)
    gate.open()
    assert one.result().phase == "failed"
    assert queue.not_alive() == ""


def test_a_job_that_waits_too_long_fails_in_words(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make()
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    running = queue.start(job(tiny), ANN)
    gate.wait()
    monkeypatch.setattr(queue._housekeeping, "_limits", Limits(wait=0.2))
    event = queue.start(job(tiny, seed=8), BEN).result()
    assert event.phase == "failed"
    assert event.error is not None and "without a turn" in event.error
    gate.open()
    assert running.result().phase == "finished"
