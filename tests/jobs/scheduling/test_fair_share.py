"""Who is next: persons take turns, sessions share their person's, and a ready model's job may go first
within a bound that holds over whole runs. Those go through the real store, whose bookkeeping it rests on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.scheduling.fair_share import Fair, fair
from jobs.store.models import Owner, QueueSnapshot, Record
from jobs.store.sqlite import SqliteStore
from tests.jobs.waiting import LINE, Clock, job, owner

NOBODY = QueueSnapshot({}, [], (), 1000.0)
MODELS = ("large", "turbo", "medium")


def wait(*owners: Owner, model: str = "sketch") -> list[Record]:
    """These arrived in this order, one job each."""
    return [Record(job(model), LINE, one, "page", "queued", place, 0.0) for place, one in enumerate(owners)]


def persons(order: list[Record]) -> str:
    return "".join(one.owner.person.removeprefix("address:") for one in order)


def test_persons_take_turns() -> None:
    waiting = wait(*[owner("A")] * 50, *map(owner, "BCDEF"))
    assert persons(fair(waiting, NOBODY)) == "ABCDEF" + "A" * 49


def test_who_never_had_a_turn_goes_before_whoever_had_one_and_then_the_longest_ago() -> None:
    sight = replace(NOBODY, served={"address:A": 3.0, "address:B": 2.0})
    assert persons(fair(wait(*map(owner, "ABCDA")), sight)) == "CDBAA"


def test_sessions_take_turns_within_their_person() -> None:
    waiting = wait(*[owner("A", "1")] * 3, owner("A", "2"), owner("A", "3"))
    sight = replace(NOBODY, served={("address:A", "2"): 1.0})
    assert [one.owner.session for one in fair(waiting, sight)] == ["1", "3", "2", "1", "1"]


def test_within_a_session_the_first_to_arrive_goes_first() -> None:
    waiting = wait(*[owner("A", "1")] * 9)
    assert fair(waiting, NOBODY) == waiting


def test_who_goes_first_is_before_everyone_else_and_takes_turns_among_themselves() -> None:
    owners = [owner("A"), owner("B", first=True), owner("B", first=True), owner("C", first=True)]
    assert persons(fair(wait(*owners), NOBODY)) == "BCBA"


def test_a_person_who_is_drawn_for_is_passed_over() -> None:
    waiting = wait(*map(owner, "AB"))
    sight = replace(NOBODY, running=["address:A"])
    choice = Fair()(waiting, sight)
    assert choice is not None
    assert (choice.job, choice.skipped) == (waiting[1].job.id, ())
    assert Fair()(waiting[:1], sight) is None
    assert Fair(running_each=2)(waiting[:1], sight) is not None


def test_nobody_is_chosen_where_nobody_waits() -> None:
    assert fair([], NOBODY) == []
    assert Fair()([], NOBODY) is None


def mixed() -> list[Record]:
    """A waits for a model that isn't ready, B and C for one that is."""
    return wait(owner("A"), model="large") + [
        replace(one, place=one.place + 1) for one in wait(*map(owner, "BC"), model="turbo")
    ]


def test_a_ready_models_job_goes_first_and_says_whom_it_overtakes() -> None:
    waiting = mixed()
    choice = Fair()(waiting, replace(NOBODY, resident=["turbo"]))
    assert choice is not None
    assert (choice.job, choice.skipped) == (waiting[1].job.id, (waiting[0].job.id,))


@pytest.mark.parametrize(
    "policy, overtaken, since, resident",
    [
        (Fair(), 0, None, ()),
        (Fair(), 0, None, ("medium",)),
        (Fair(most_overtaken=0), 0, None, ("turbo",)),
        (Fair(), 2, 999.0, ("turbo",)),
        (Fair(), 1, 969.9, ("turbo",)),
    ],
)
def test_the_front_of_the_fair_order_is_next_where_nothing_may_overtake(
    policy: Fair, overtaken: int, since: float | None, resident: tuple[str, ...]
) -> None:
    front, *others = mixed()
    choice = policy(
        [replace(front, overtaken=overtaken, since=since), *others], replace(NOBODY, resident=resident)
    )
    assert choice is not None
    assert (choice.job, choice.skipped) == (front.job.id, ())


def test_one_who_may_not_be_overtaken_any_more_guards_everyone_before() -> None:
    first, second, third = wait(*map(owner, "ABC"), model="large")
    ready = replace(third, job=job("turbo"))
    choice = Fair()([first, replace(second, overtaken=2), ready], replace(NOBODY, resident=["turbo"]))
    assert choice is not None
    assert (choice.job, choice.skipped) == (first.job.id, ())


def test_who_goes_first_is_overtaken_only_by_others_who_do() -> None:
    front, other, third = mixed()
    chosen = replace(front, owner=owner("A", first=True))
    sight = replace(NOBODY, resident=["turbo"])
    assert Fair()([chosen, other, third], sight) == Fair()([chosen], sight)
    equal = replace(third, owner=owner("C", first=True))
    choice = Fair()([chosen, other, equal], sight)
    assert choice is not None
    assert (choice.job, choice.skipped) == (equal.job.id, (chosen.job.id,))


# Whole runs.


@dataclass
class Run:
    """A device that draws one job after the other and keeps the last one's model, beside a real store."""

    store: SqliteStore
    clock: Clock
    policy: Fair
    keeps: bool = True
    resident: tuple[str, ...] = ()
    drawn: list[Record] = field(default_factory=list)
    overtakings: list[tuple[str, float]] = field(default_factory=list)

    def add(self, who: Owner, model: str) -> str:
        self.clock.now += 0.001
        return self.store.add(job(model), LINE, who, "page", 10_000, 10_000).job.id

    def draw(self, seconds: float = 5.0) -> Record | None:
        """Gives the next job its turn, and lets that much time go by."""
        before = {one.job.id: one.overtaken for one in self.store.waiting(LINE)}
        record = self.store.claim(LINE, self.policy, self.resident)
        for one in self.store.waiting(LINE):
            if one.overtaken > before[one.job.id]:
                self.overtakings.append((one.job.id, self.clock.now))
        if record is None:
            return None
        if self.keeps:
            self.resident = (record.job.model,)
        self.clock.now += seconds
        assert self.store.finish(record.job.id, record.attempt, "finished")
        self.drawn.append(record)
        return record


@contextmanager
def run(policy: Fair, keeps: bool = True) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="jobs-") as folder:
        clock = Clock()
        store = SqliteStore(Path(folder, "jobs.sqlite"), clock)
        yield Run(store, clock, policy, keeps)
        store.close()


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from("ABCD"),
        st.sampled_from(("1", "2")),
        st.sampled_from(MODELS),
        st.booleans(),  # whether a job is drawn after this one arrived
        st.sampled_from((1.0, 5.0, 40.0)),  # seconds that it takes
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(arrivals=ARRIVALS, most=st.integers(0, 3), seconds=st.sampled_from((0.0, 8.0, 30.0)))
def test_nobody_is_overtaken_beyond_the_bound_and_everyone_is_drawn(
    arrivals: list[tuple[str, str, str, bool, float]], most: int, seconds: float
) -> None:
    with run(Fair(most_overtaken=most, most_seconds=seconds)) as device:
        added = []
        for person, session, model, draws, takes in arrivals:
            added.append(device.add(owner(person, session, first=person == "D"), model))
            if draws:
                device.draw(takes)
        while device.draw():
            pass
        assert sorted(one.job.id for one in device.drawn) == sorted(added)
        for one in device.drawn:
            times = [when for id_, when in device.overtakings if id_ == one.job.id]
            assert len(times) == one.overtaken <= most
            assert not times or (times[0] == one.since and times[-1] - times[0] <= seconds)


@settings(max_examples=10, deadline=None)
@given(before=st.integers(0, 49), model=st.sampled_from(MODELS), sessions=st.integers(1, 50))
def test_a_visitor_with_50_jobs_delays_another_by_at_most_one(before: int, model: str, sessions: int) -> None:
    with run(Fair(), keeps=False) as device:
        for number in range(50):
            device.add(owner("A", str(number % sessions)), MODELS[number % 3])
        for _ in range(before):
            device.draw()
        drawing = device.store.claim(LINE, device.policy)
        other = device.add(owner("B"), model)
        assert drawing is not None
        assert device.store.finish(drawing.job.id, 1, "finished")
        # The one that was being drawn was the one.
        following = device.draw()
        assert following is not None
        assert following.job.id == other


@settings(max_examples=8, deadline=None)
@given(sessions=st.integers(1, 30))
def test_minting_sessions_gains_nothing(sessions: int) -> None:
    with run(Fair(), keeps=False) as device:
        for number in range(30):
            device.add(owner("minter", str(number % sessions)), "large")
            device.add(owner("B"), "large")
        while device.draw():
            pass
        turns = ["minter" in one.owner.person for one in device.drawn]
        assert turns == [True, False] * 30


def test_what_is_foreseen_is_what_is_drawn() -> None:
    with run(Fair(), keeps=False) as device:
        for number in range(40):
            device.add(owner("ABCDE"[number * number % 5], str(number % 3), first=number % 7 == 0), "large")
        for _ in range(9):
            device.draw()
        waiting = device.store.waiting(LINE)
        foreseen = fair(waiting, device.store.snapshot(waiting, ()))
        while device.draw():
            pass
        assert [one.job.id for one in foreseen] == [one.job.id for one in device.drawn[9:]]
