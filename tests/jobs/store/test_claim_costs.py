"""What a claim costs depends on who waits alone, however many have been here; and so does who is next."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.scheduling.fair_share import fair
from jobs.store.models import Owner, QueueSnapshot
from jobs.store.sqlite import SqliteStore
from tests.jobs.store.stored_jobs import ROOMY, SEVERAL, drawn, stopped
from tests.jobs.waiting import LINE, Clock, job, owner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


def steps(store: SqliteStore, do: Callable[[], object]) -> int:
    """Instructions of SQLite's virtual machine that this takes: for each row that it looks at a few."""
    count = 0

    def one() -> None:
        nonlocal count
        count += 1

    store._database._connection.set_progress_handler(one, 1)
    try:
        do()
    finally:
        store._database._connection.set_progress_handler(None, 0)
    return count


def test_what_a_claim_costs_does_not_grow_with_strangers(store: SqliteStore) -> None:
    def costs() -> dict[str, int]:
        for number in range(20):
            store.add(job(), LINE, owner(str(number), "s"), "page", *ROOMY)
        store.claim(LINE, SEVERAL)  # those that wait are read once
        waiting = store.waiting(LINE)
        found = {
            "claim": steps(store, lambda: store.claim(LINE, SEVERAL)),
            "waiting": steps(store, lambda: store.waiting(LINE)),
            "sight": steps(store, lambda: store.snapshot(waiting, ["sketch"])),
            "add": steps(store, lambda: store.add(job(), LINE, owner("A"), "page", *ROOMY)),
            "refused": steps(store, lambda: refused(store)),
            "running": steps(store, store.running),
            "of": steps(store, lambda: store.listed_for(owner("0", "s"))),
            "lines": steps(store, store.lines),
        }
        for record in [*store.waiting(LINE), *store.running()]:
            store.stop(record.job.id)
            store.finish(record.job.id, record.attempt, "stopped")
        store.forget([one.job for one in store.ended()][-100:])
        return found

    drawn(store, 25)
    few = costs()
    drawn(store, 300)
    stopped(store, 300, "a fox")
    many = costs()
    assert {name: number for name, number in many.items() if number > few[name] + 50} == {}


def refused(store: SqliteStore) -> None:
    with pytest.raises(Exception, match="waiting already"):
        store.add(job(), LINE, owner("B"), "page", 1, 1)


def test_every_query_of_a_claim_uses_an_index(store: SqliteStore) -> None:
    drawn(store, 5)
    asked_for: list[str] = []
    connection = store._database._connection
    for _ in range(3):
        store.add(job(), LINE, owner(), "page", *ROOMY)
    connection.set_trace_callback(asked_for.append)
    record = store.claim(LINE, SEVERAL)
    assert record is not None
    refused(store)
    store.listed_for(owner("A", "s"))
    store.listed_for(Owner("user:ann"))
    store.finish(record.job.id, 1, "finished")
    connection.set_trace_callback(None)
    seen = [one for one in asked_for if re.match("SELECT|UPDATE|INSERT|DELETE", one)]
    assert len(seen) > 10
    for statement in seen:
        for *_, plan in connection.execute(f"EXPLAIN QUERY PLAN {statement}"):
            # A scan of the few that wait or run, which have an index of their own, is none of all.
            whole = re.match("SCAN (jobs|served)", plan) and not re.search("INDEX (waiting|running)", plan)
            assert not whole and "TEMP B-TREE FOR ORDER" not in plan, (statement, plan)


def test_only_so_many_of_ones_own_jobs_are_listed_the_newest(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.store.sqlite.MOST_LISTED", 3)
    for one in (owner("A", "s"), Owner("user:ann", "s")):
        added = [store.add(job(), LINE, one, "page", *ROOMY) for _ in range(5)]
        assert store.listed_for(one) == added[:1:-1]


TURNS = st.lists(
    st.tuples(st.sampled_from("ABCD"), st.sampled_from(("", "1", "2")), st.integers(0, 2)), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(turns=TURNS)
def test_those_who_wait_come_in_the_order_that_all_turns_ever_had_would_give(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, str, int]]
) -> None:
    clock = Clock()
    store = SqliteStore(tmp_path_factory.mktemp("turns") / "jobs.sqlite", clock)
    ever: dict[str | tuple[str, str], float] = {}
    for person, session, claims in turns:
        store.add(job(), LINE, owner(person, session), "page", *ROOMY)
        for _ in range(claims):
            clock.now += 1
            waiting = store.waiting(LINE)
            sight = store.snapshot(waiting, ())
            keys = {
                key for one in waiting for key in (one.owner.person, (one.owner.person, one.owner.session))
            }
            assert sight.served == {key: at for key, at in ever.items() if key in keys}
            order = fair(waiting, QueueSnapshot(ever, [], (), clock.now))
            record = store.claim(LINE, SEVERAL)
            assert [one.job.id for one in order[:1]] == ([record.job.id] if record else [])
            if record is not None:
                ever[record.owner.person] = ever[record.owner.person, record.owner.session] = clock.now
    store.close()
