"""The queue draws each job once, in turns, whatever happens meanwhile to its readers."""

from __future__ import annotations

import pytest
from diffusers import SD3Transformer2DModel

from jobs.eta.estimator import Estimator
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.store.models import Owner
from pipeline.engine import Engine
from pipeline.errors import Busy, InvalidRequest
from tests.jobs.queueing import ANN, BEN, SOON, Make, counts, job, stopping, until
from tests.support.tiny import hold


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
