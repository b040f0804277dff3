"""Who is next: persons take turns, and a job whose model is ready may go first, within a bound. Pure
functions of who waits and of what a store knows besides: no clock is read here and nothing written."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jobs.store.models import WITH_VISITOR, Choice, QueueSnapshot, Record


def fair(waiting: Sequence[Record], snapshot: QueueSnapshot) -> list[Record]:
    """The order in which these would be drawn if nobody came or left: who goes first (`Owner.first`) before
    everyone else; then the person whose last turn is longest ago, who never had one before all who did;
    within a person the same between sessions; within a session, the order of arrival. So is every tie
    decided. Each job drawn is a turn of its person and of its session.

    Args:
        waiting: in order of arrival.
    """
    return list(_turns(waiting, snapshot.served))


@dataclass(frozen=True)
class Fair:
    """The fair order, kind to the card: a `models.Policy`.

    running_each: jobs of one person that are drawn at once, on all devices. most_overtaken: how often a job
    may be overtaken by one whose model is ready; 0: never. most_seconds: after its first overtaking, how long
    it may still be. Who goes first is overtaken only by others who do.
    """

    running_each: float = 1
    most_overtaken: int = 2
    most_seconds: float = 30.0

    def __call__(self, waiting: Sequence[Record], snapshot: QueueSnapshot) -> Choice | None:
        drawing = Counter(snapshot.running)
        may_run = [one for one in waiting if drawing[one.owner.person] < self.running_each]
        order = _turns(may_run, snapshot.served)
        front = next(order, None)
        if front is None:
            return None
        ahead: list[str] = []
        if snapshot.resident:
            # The first of a ready model is the only one to ask about: whoever bars it bars those behind it.
            for record in itertools.chain([front], order):
                if front.owner.first and not record.owner.first:
                    break
                if record.job.model in snapshot.resident:
                    return Choice(record.job.id, tuple(ahead))
                if not self._may_be_overtaken(record, snapshot.now):
                    break
                ahead.append(record.job.id)
        return Choice(front.job.id)

    def _may_be_overtaken(self, record: Record, now: float) -> bool:
        early = record.since is None or now - record.since <= self.most_seconds
        return record.overtaken < self.most_overtaken and early


def policy_for(line: str, running_each: int) -> Fair:
    """Return who is next in a line. Where jobs are drawn inside their visitors' own calls, the quota that
    each pays with bounds how many of one person's are drawn at once."""
    return Fair(math.inf if line == WITH_VISITOR else running_each)


def _turns(waiting: Sequence[Record], served: Mapping[str | tuple[str, str], float]) -> Iterator[Record]:
    """The fair order, as far as it is asked for; n jobs of it cost O(waiting + n log waiting)."""
    # When a turn was had: (0, seconds) before now, (1, number) of those foreseen here, which are all later.
    foreseen: dict[str | tuple[str, str], tuple[int, float]] = {}
    numbers = itertools.count()

    def last(key: str | tuple[str, str]) -> tuple[int, float]:
        return foreseen.get(key) or (0, served.get(key, -math.inf))

    for first in (True, False):
        queues: dict[str, dict[str, deque[Record]]] = {}
        for record in waiting:
            if record.owner.first is first:
                sessions = queues.setdefault(record.owner.person, {})
                sessions.setdefault(record.owner.session, deque()).append(record)
        # Heaps of (last turn, place of the oldest job, …): places differ, so nothing behind them is compared.
        persons = []
        for person, sessions in queues.items():
            inner = [(last((person, name)), jobs[0].place, name, jobs) for name, jobs in sessions.items()]
            heapq.heapify(inner)
            persons.append((last(person), min(place for _, place, _, _ in inner), person, inner))
        heapq.heapify(persons)
        while persons:
            _, place, person, inner = persons[0]
            _, oldest, name, jobs = inner[0]
            yield jobs.popleft()
            turn = (1, float(next(numbers)))
            foreseen[person] = foreseen[person, name] = turn
            if jobs:
                heapq.heapreplace(inner, (turn, oldest, name, jobs))
            else:
                heapq.heappop(inner)
            if inner:
                heapq.heapreplace(persons, (turn, place, person, inner))
            else:
                heapq.heappop(persons)
