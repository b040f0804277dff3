"""Nothing is drawn that nobody can come back for; and what waits for a server's return isn't late for it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from diffusers import SD3Transformer2DModel

from api.start_job import start_job
from jobs.queue import Queue
from jobs.store.models import Choice, Lifetime
from jobs.store.sqlite import SqliteStore
from pipeline.engine import Engine
from tests.jobs.queueing import ANN, Make, counts, job, stopping, until
from tests.support.tiny import hold


@pytest.fixture
def left(tmp_path: Path) -> SqliteStore:
    """What a server has written down that was killed; to be closed before the next one begins."""
    return SqliteStore(tmp_path / "data" / "jobs.sqlite")


@pytest.mark.parametrize("running", [False, True])
def test_a_job_whose_id_nobody_chose_is_not_drawn_after_a_restart_and_says_so(
    tiny: Engine, make: Make, left: SqliteStore, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=-1)
    one = job(tiny)
    left.add(one, "cpu", ANN, "attached", 50, 20)
    if running:
        left.claim("cpu", lambda *_: Choice(one.id))
    left.close()
    queue = make()
    found = queue.find(one.id)
    assert found is not None
    event = found.result()
    assert event.phase == "stopped"
    assert event.error is not None and "restarted" in event.error
    assert gate.calls == 0
    assert [record.error for record in queue.listed_for(ANN)] == [event.error]
    assert counts(queue)["stepwise_jobs_ended_total", "tiny", "stopped"] == 1


def test_a_job_of_the_page_whose_visitor_does_not_come_back_after_a_restart_ends_when_the_patience_is_over(
    tiny: Engine, make: Make, left: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    one = job(tiny)
    left.add(one, "cpu", ANN, "page", 50, 20)
    left.close()
    queue = make(abandoned=0.1)
    gate.wait()
    found = queue.find(one.id)
    assert found is not None
    until(lambda: stopping(found))
    gate.open()
    assert found.result().phase == "stopped"


def test_the_time_for_which_there_was_no_server_is_no_wait(tiny: Engine, make: Make, tmp_path: Path) -> None:
    yesterday = SqliteStore(tmp_path / "data" / "jobs.sqlite", clock=lambda: 1_700_000_000.0)
    one = job(tiny)
    yesterday.add(one, "cpu", ANN, "detached", 50, 20)
    yesterday.close()
    queue = make(wait=3600)
    queue._housekeeping._look()
    found = queue.find(one.id)
    assert found is not None and found.result().phase == "finished"


@pytest.mark.parametrize("lifetime", ["attached", "page"])
def test_a_caller_who_leaves_while_its_job_is_written_down_has_nothing_drawn(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch, lifetime: Lifetime
) -> None:
    queue = make(abandoned=0.1 if lifetime == "page" else None)
    entering, entered = threading.Event(), threading.Event()
    add = SqliteStore.add

    def slow(*args: Any) -> Any:
        entering.set()
        assert entered.wait(60)
        return add(*args)

    monkeypatch.setattr(SqliteStore, "add", slow)
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    one = job(tiny, steps=40)

    async def leaves() -> None:
        starting = asyncio.create_task(start_job(queue, one, lifetime))
        await asyncio.to_thread(entering.wait, 60)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        entered.set()

    asyncio.run(leaves())
    until(lambda: queue.find(one.id))
    found = queue.find(one.id)
    assert found is not None
    until(lambda: stopping(found))
    gate.open()
    assert found.result().phase == "stopped"


def test_a_caller_who_leaves_just_as_its_job_is_written_down_has_nothing_drawn(
    tiny: Engine, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    one, started = job(tiny, steps=40), threading.Event()
    start = tiny_queue.start

    def noted(*args: Any) -> Any:
        following = start(*args)
        started.set()
        return following

    monkeypatch.setattr(tiny_queue, "start", noted)

    async def leaves() -> None:
        starting = asyncio.create_task(start_job(tiny_queue, one))
        while not started.is_set():
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(leaves())
    found = tiny_queue.find(one.id)
    assert found is not None
    until(lambda: stopping(found))
    gate.open()
    assert found.result().phase == "stopped"
