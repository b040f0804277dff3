"""A server that is closed or killed: the next one draws what it left, once each."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from diffusers import SD3Transformer2DModel

from jobs.lifecycle.recovery import MOST_ATTEMPTS
from jobs.store.event_log import LogWriter
from jobs.store.log_names import log_path
from jobs.store.models import Choice, Record
from jobs.store.sqlite import SqliteStore
from pipeline.engine import Engine
from pipeline.executors.executor import Capabilities
from pipeline.request import Job
from tests.jobs.queueing import ANN, BEN, SOON, Make, counts, job, until
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
