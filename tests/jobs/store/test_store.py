"""Jobs are written down before they are promised, given out once, and end once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.scheduling.fair_share import Fair
from jobs.store.models import Choice, Record
from jobs.store.sqlite import SqliteStore
from pipeline.errors import Busy
from tests.jobs.store.stored_jobs import ROOMY, SEVERAL, add, claim
from tests.jobs.waiting import LINE, Clock, job, owner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SqliteStore]:
    opened = SqliteStore(path, clock)
    yield opened
    opened.close()


# Adding.


def test_a_job_is_found_as_it_was_added(store: SqliteStore, clock: Clock) -> None:
    asked = job(prompt="“ein Apfel” 🍎\n")
    record = store.add(asked, LINE, owner("A", "s", first=True), "detached", *ROOMY)
    assert store.get(asked.id) == record
    assert store.waiting(LINE) == [record]
    assert record == Record(
        asked, LINE, owner("A", "s", first=True), "detached", "queued", record.place, clock.now
    )


def test_an_unknown_job_is_none(store: SqliteStore) -> None:
    assert store.get(job().id) is None


def test_a_job_added_twice_is_one_job_also_where_the_line_is_full(store: SqliteStore) -> None:
    asked = job()
    first = store.add(asked, LINE, owner("A"), "page", 1, 1)
    again = store.add(asked.model_copy(update={"prompt": "another"}), "cpu", owner("B"), "attached", 1, 1)
    assert first == again
    assert len(store.waiting(LINE)) == 1
    claim(store)
    assert store.add(asked, LINE, owner("A"), "page", 1, 1).state == "running"


def test_a_full_line_and_too_many_of_one_person_are_refused_in_different_words(store: SqliteStore) -> None:
    for person in "ABC":
        store.add(job(), LINE, owner(person), "page", 3, 1)
    with pytest.raises(Busy, match="3 drawings are waiting already, as many as this server takes") as full:
        store.add(job(), LINE, owner("D"), "page", 3, 1)
    assert full.value.retry_after is None
    with pytest.raises(Busy, match="You have 1 drawing waiting already"):
        store.add(job(), "cpu", owner("A"), "page", 3, 1)
    assert store.add(job(), "cpu", owner("D"), "page", 3, 1).state == "queued"
    claim(store)
    assert store.add(job(), LINE, owner("D"), "page", 3, 2).state == "queued"


def test_a_refusal_tells_when_to_come_back_by_what_drawing_took(store: SqliteStore, clock: Clock) -> None:
    for seconds in (4.0, 6.0):
        add(store)
        record = claim(store)
        clock.now += seconds
        store.finish(record.job.id, record.attempt, "finished")
    for person in "AB":
        add(store, person)
    with pytest.raises(Busy) as full:
        store.add(job(), LINE, owner("C"), "page", 2, 5)
    assert full.value.retry_after == pytest.approx(5.0)
    with pytest.raises(Busy) as own:
        store.add(job(), LINE, owner("A"), "page", 9, 1)
    assert own.value.retry_after == pytest.approx(10.0)


# Claiming.


def test_many_threads_that_claim_never_get_the_same_job(store: SqliteStore) -> None:
    added = {add(store, str(number % 7)).job.id for number in range(200)}
    taken: list[str] = []

    def draw() -> None:
        while (record := store.claim(LINE, SEVERAL)) is not None:
            taken.append(record.job.id)
            assert store.finish(record.job.id, record.attempt, "finished")

    threads = [threading.Thread(target=draw) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 200
    assert set(taken) == added


def test_two_processes_connections_never_claim_the_same_job(store: SqliteStore, path: Path) -> None:
    added = {add(store).job.id for _ in range(100)}
    other = SqliteStore(path)
    taken: list[str] = []

    def draw(one: SqliteStore) -> None:
        while (record := one.claim(LINE, SEVERAL)) is not None:
            taken.append(record.job.id)

    threads = [threading.Thread(target=draw, args=(one,)) for one in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == Counter(added)
    assert len(other.running()) == 100
    other.close()


def test_a_claim_begins_an_attempt_and_is_its_owners_turn(store: SqliteStore, clock: Clock) -> None:
    add(store, "A")
    clock.now += 3
    record = claim(store)
    assert (record.state, record.attempt, record.started) == ("running", 1, clock.now)
    assert store.running() == [record] == [store.get(record.job.id)]
    sight = store.snapshot([record], ["sketch"])
    assert sight.running == ["address:A"]
    assert sight.served == {"address:A": clock.now, ("address:A", ""): clock.now}
    assert (sight.resident, sight.now) == ({"sketch"}, clock.now)
    assert store.waiting(LINE) == []


def test_lines_are_apart_and_a_line_whose_policy_chooses_nobody_stays_as_it_is(store: SqliteStore) -> None:
    record = add(store, line="cpu")
    assert store.claim(LINE, SEVERAL) is None
    assert store.claim("cpu", lambda waiting, sight: None) is None
    assert store.waiting("cpu") == [record]


def test_a_policy_that_fails_or_chooses_who_does_not_wait_changes_nothing(store: SqliteStore) -> None:
    first, second = add(store), add(store)

    def fails(waiting: object, sight: object) -> Choice:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.claim(LINE, fails)
    with pytest.raises(ValueError, match="doesn't wait"):
        store.claim(LINE, lambda waiting, sight: Choice(job().id, (first.job.id,)))
    assert store.waiting(LINE) == [first, second]


def test_the_policy_sees_what_sight_and_waiting_show(store: SqliteStore) -> None:
    add(store, "A")
    claim(store)
    add(store, "B")
    seen = []
    store.claim(LINE, lambda waiting, sight: seen.append((list(waiting), sight)), ["sketch"])
    assert seen == [(store.waiting(LINE), store.snapshot(store.waiting(LINE), ["sketch"]))]


def test_who_is_overtaken_is_counted_and_the_first_time_kept(store: SqliteStore, clock: Clock) -> None:
    front = add(store, "A", "large")
    for person in "BC":
        add(store, person, "turbo")
    for times in (1, 2):
        clock.now += 5
        assert store.claim(LINE, Fair(), ["turbo"]) is not None
        (now,) = [one for one in store.waiting(LINE) if one.job == front.job]
        assert (now.overtaken, now.since) == (times, clock.now - 5 * (times - 1))


def test_turns_keep_their_order_where_the_clock_is_set_back(store: SqliteStore, clock: Clock) -> None:
    for person in "ABAB":
        add(store, person)
    claim(store)
    clock.now -= 3600
    drawn = [claim(store).owner.person for _ in range(3)]
    assert drawn == ["address:B", "address:A", "address:B"]


def test_only_so_many_turns_are_remembered_the_last_ones(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.store.sqlite.MOST_SERVED", 5)
    served = []
    for number in range(9):
        store.add(job(), LINE, owner(str(number)), "attached", *ROOMY)
        record = store.claim(LINE, lambda waiting, sight: Choice(waiting[0].job.id))
        served.append(record)
    store.tidy()
    remembered = store.snapshot([record for record in served if record is not None], ()).served
    assert {key for key in remembered if isinstance(key, str)} == {f"address:{n}" for n in range(4, 9)}
    assert len(remembered) == 10


# Ending.


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_an_attempt_ends_once(store: SqliteStore, clock: Clock, state: str) -> None:
    add(store)
    record = claim(store)
    clock.now += 2
    assert store.finish(record.job.id, 1, state, "Words.", "code")  # type: ignore[arg-type]
    after = store.get(record.job.id)
    assert after == replace(record, state=state, ended=clock.now, error="Words.", code="code")  # type: ignore[arg-type]
    assert store.ended() == [(after.job.id, clock.now)]
    assert not store.finish(record.job.id, 1, "failed")
    assert not store.requeue(record.job.id, 1)
    assert store.get(record.job.id) == after


def test_an_attempt_can_not_end_as_something_that_is_no_end(store: SqliteStore) -> None:
    add(store)
    with pytest.raises(ValueError, match=r"can't become 'queued'"):
        store.finish(claim(store).job.id, 1, "queued")


def test_an_old_attempt_changes_nothing(store: SqliteStore) -> None:
    id_ = add(store).job.id
    claim(store)
    assert store.requeue(id_, 1)
    assert claim(store).attempt == 2
    now = store.get(id_)
    assert not store.finish(id_, 1, "finished")
    assert not store.requeue(id_, 1, killed=True)
    assert store.get(id_) == now


def test_a_job_that_is_put_back_waits_in_its_old_place(store: SqliteStore) -> None:
    added = [add(store, person) for person in "ABC"]
    first = claim(store)
    assert store.requeue(first.job.id, first.attempt, killed=True)
    waiting = store.waiting(LINE)
    assert [one.job.id for one in waiting] == [one.job.id for one in added]
    assert waiting[0] == replace(added[0], attempt=1, kills=1)
    again = store.claim(LINE, lambda waiting, sight: Choice(waiting[0].job.id))
    assert again is not None
    assert (again.job, again.attempt, again.kills) == (added[0].job, 2, 1)


# Stopping.


def test_what_waits_is_stopped_now(store: SqliteStore, clock: Clock) -> None:
    record = add(store)
    assert store.stop(record.job.id) == replace(record, state="stopped", ended=clock.now)
    assert store.claim(LINE, SEVERAL) is None


def test_what_runs_is_asked_to_stop_until_it_has_ended(store: SqliteStore) -> None:
    add(store)
    record = claim(store)
    assert store.stop(record.job.id) == replace(record, stop=True)
    assert store.finish(record.job.id, 1, "stopped")
    after = store.get(record.job.id)
    assert after is not None
    assert (after.state, after.stop) == ("stopped", False)


def test_what_was_asked_to_stop_does_not_wait_again(store: SqliteStore, clock: Clock) -> None:
    add(store)
    record = claim(store)
    store.stop(record.job.id)
    assert store.requeue(record.job.id, 1, killed=True)
    after = store.get(record.job.id)
    assert after is not None
    assert (after.state, after.ended, after.kills) == ("stopped", clock.now, 1)
    assert store.waiting(LINE) == []


def test_what_has_ended_stays_as_it_is_and_an_unknown_job_is_none(store: SqliteStore) -> None:
    add(store)
    record = claim(store)
    store.finish(record.job.id, 1, "finished")
    after = store.get(record.job.id)
    assert store.stop(record.job.id) == after
    assert store.stop(job().id) is None


# Finding and forgetting.


def test_a_users_jobs_are_theirs_from_every_session_and_a_visitors_only_of_this_one(
    store: SqliteStore,
) -> None:
    ann = replace(owner(), person="user:ann")
    owners = [
        replace(ann, session="1"),
        replace(ann, session="2"),
        owner("A", "1"),
        owner("A", "2"),
        owner("A"),
    ]
    records = [store.add(job(), LINE, one, "page", *ROOMY) for one in owners]
    assert store.listed_for(ann) == records[1::-1]
    assert store.listed_for(owner("A", "2")) == [records[3]]
    assert store.listed_for(owner("A")) == []


def test_those_that_ended_first_are_in_front_and_only_they_are_forgotten(
    store: SqliteStore, clock: Clock
) -> None:
    ids = [add(store).job.id for _ in range(4)]
    for id_ in (ids[2], ids[0]):
        clock.now += 1
        store.stop(id_)
    running = claim(store).job.id
    assert [one.job for one in store.ended()] == [ids[2], ids[0]]
    store.forget([ids[2], running, ids[3], job().id])
    assert [one.job for one in store.ended()] == [ids[0]]
    assert store.get(ids[2]) is None
    assert {one.job.id for one in (*store.running(), *store.waiting(LINE))} == {running, ids[3]}


def test_a_place_is_never_given_again(store: SqliteStore) -> None:
    first = add(store)
    store.stop(first.job.id)
    store.forget([first.job.id])
    assert add(store).place > first.place
