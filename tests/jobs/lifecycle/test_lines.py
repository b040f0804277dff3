"""A job is drawn, or fails in words: it never waits in a line that nobody draws from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from diffusers import SD3Transformer2DModel
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.gradio.patches import no_app
from api.server.health import health_routes
from jobs.lifecycle.subscription import Subscription
from jobs.queue import Queue
from jobs.store.models import Record
from jobs.store.sqlite import SqliteStore
from pipeline.engine import Engine
from pipeline.errors import Busy
from pipeline.events import Event
from tests.jobs.queueing import ANN, BEN, Make, counts, job, until
from tests.support.tiny import hold

LOST = "CUDA error: device-side assert triggered"
NO_THREAD = "can't start new thread"


@pytest.fixture
def loses(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the next so many steps end as where a GPU fails, which the test machine lacks."""
    forward, left = SD3Transformer2DModel.forward, [0]

    def failing(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError(LOST)
        return forward(*args, **kwargs)

    def lose(times: int) -> None:
        left[0] = times

    monkeypatch.setattr(SD3Transformer2DModel, "forward", failing)
    return lose


@pytest.fixture
def lent(tiny: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine whose model is drawn in its visitors' own calls, as on ZeroGPU; the worker is stood in for by
    this process."""
    monkeypatch.setattr(tiny, "line", lambda _: "zerogpu")
    lent = tiny._local["cpu"]
    run = lent.run

    def in_a_process_of_its_own(*args: Any) -> Event:
        last = run(*args)
        lent._lost = ""
        return last

    monkeypatch.setattr(lent, "run", in_a_process_of_its_own)
    monkeypatch.setattr(tiny, "_executors", {"zerogpu": lent})
    return tiny


def record(queue: Queue, one: Subscription) -> Record:
    found = queue._store.get(one.job.id)
    assert found is not None
    return found


# ZeroGPU's.


def test_a_job_whose_lent_gpu_fails_is_drawn_again_in_its_visitors_own_call(
    lent: Engine, make: Make, loses: Callable[[int], None]
) -> None:
    queue = make()
    loses(1)
    event = queue.start(job(lent), ANN).result()
    assert event.phase == "finished"
    assert any("drawn again" in warning for warning in event.warnings)


def test_a_job_whose_lent_gpu_fails_twice_is_set_aside_in_words(
    lent: Engine, make: Make, loses: Callable[[int], None]
) -> None:
    queue = make()
    loses(2)
    event = queue.start(job(lent), ANN).result()
    assert (event.phase, event.code) == ("failed", "worker_died")
    assert event.error is not None and "set aside" in event.error and "2 times" in event.error
    assert queue.not_ready() == queue.not_alive() == ""
    assert queue.start(job(lent, seed=8), BEN).result().phase == "finished"


def test_a_lent_job_that_can_not_be_claimed_is_drawn_once_it_can(
    lent: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.scheduling.dispatch.RETRY", 0.01)
    queue = make()

    def fails(*_: Any) -> None:
        raise ValueError("unforeseen")

    with monkeypatch.context() as broken:
        broken.setattr(SqliteStore, "claim", fails)
        one = queue.start(job(lent), ANN)
        until(queue.not_ready)
    assert one.result().phase == "finished"
    assert queue.start(job(lent, seed=8), ANN).result().phase == "finished"


# Another device after a restart.


def test_a_job_that_waited_for_a_device_that_is_gone_is_drawn_by_the_one_there_is(
    tiny: Engine, make: Make, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "data" / "jobs.sqlite")
    waited = job(tiny)
    store.add(waited, "cuda", ANN, "detached", 50, 20)
    store.close()
    found = make().find(waited.id)
    assert found is not None and found.result().phase == "finished"


def test_a_job_that_waited_for_a_device_that_is_gone_fails_where_only_visitors_have_one(
    lent: Engine, make: Make, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "data" / "jobs.sqlite")
    waited = job(lent)
    store.add(waited, "cuda", ANN, "detached", 50, 20)
    store.close()
    found = make().find(waited.id)
    assert found is not None
    event = found.result()
    assert (event.phase, event.code) == ("failed", "model_unavailable")
    assert event.error is not None and "Draw again" in event.error


# A GPU that this very process has lost.


def test_a_lost_gpu_of_a_server_without_workers_takes_one_job_and_no_other(
    tiny: Engine, make: Make, loses: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = make()
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    loses(10**6)
    first = queue.start(job(tiny), ANN, "detached")
    gate.wait()
    second = queue.start(job(tiny, seed=8), BEN, "detached")
    gate.open()
    until(queue.not_alive)
    assert "restart the server" in queue.not_alive()
    assert "restart the server" in queue.not_ready()
    for waits in (first, second):
        until(lambda waits=waits: any("restart" in words for words in waits.latest.warnings))
        assert waits.latest.phase == "queued" and waits.latest.eta is None
        assert not any("process" in words for words in waits.latest.warnings)
    with pytest.raises(Busy, match="restart"):
        queue.start(job(tiny, seed=9), ANN)
    assert counts(queue)["stepwise_attempts_lost_total", "worker"] == 1
    with no_app():
        with gr.Blocks() as page:
            gr.Textbox()
        page.queue()
    page._queue.active_jobs = [None]
    with TestClient(Starlette(routes=health_routes(page, queue))) as client:
        for path in ("/livez", "/readyz"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "restart the server" in answer.json()["reason"]
    # The restart that it asks for: both are drawn then.
    loses(0)
    queue = make()
    for waited in (first, second):
        found = queue.find(waited.job.id)
        assert found is not None and found.result().phase == "finished"
    assert queue.not_alive() == queue.not_ready() == ""


def test_a_job_that_waits_for_a_restart_can_be_stopped(
    tiny: Engine, make: Make, loses: Callable[[int], None]
) -> None:
    queue = make()
    loses(1)
    one = queue.start(job(tiny), ANN, "detached")
    until(queue.not_alive)
    one.stop()
    assert one.result().phase == "stopped"


def test_a_job_that_loses_the_gpu_of_two_servers_is_set_aside_in_true_words(
    tiny: Engine, make: Make, loses: Callable[[int], None]
) -> None:
    loses(2)
    queue = make()
    one = queue.start(job(tiny), ANN, "detached")
    until(lambda: record(queue, one).kills == 1)  # a server that ends meanwhile doesn't count it
    queue = make()
    found = queue.find(one.job.id)
    assert found is not None
    event = found.result()
    assert (event.phase, event.code) == ("failed", "worker_died")
    assert event.error is not None and "2 times" in event.error and "processes" not in event.error
    until(queue.not_alive)
