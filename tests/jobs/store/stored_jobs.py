"""What the tests of the store share: jobs that are added, claimed, stopped or drawn by nobody."""

from __future__ import annotations

from jobs.scheduling.fair_share import Fair
from jobs.store.models import Choice, Record, Store
from jobs.store.sqlite import SqliteStore
from tests.jobs.waiting import LINE, job, owner

ROOMY = (10**6, 10**6)
SEVERAL = Fair(running_each=1000)


def add(store: Store, person: str = "A", model: str = "sketch", line: str = LINE) -> Record:
    return store.add(job(model), line, owner(person), "page", *ROOMY)


def claim(store: Store, line: str = LINE) -> Record:
    record = store.claim(line, SEVERAL)
    assert record is not None
    return record


def stopped(store: SqliteStore, jobs: int, prompt: str = "a" * 9000) -> list[str]:
    """So many jobs of as many persons that left while they waited: no file is written for them."""
    ids = []
    for number in range(jobs):
        one = job(prompt=prompt)
        store.add(one, LINE, owner(str(number)), "page", *ROOMY)
        store.stop(one.id)
        ids.append(one.id)
    return ids


def drawn(store: SqliteStore, persons: int) -> None:
    """As many turns, each another person's, in the same line."""
    for number in range(persons):
        one = job()
        store.add(one, LINE, owner(f"stranger {number}", str(number)), "attached", *ROOMY)
        assert store.claim(LINE, lambda waiting, sight, one=one: Choice(one.id)) is not None  # type: ignore[misc]
        store.finish(one.id, 1, "finished")
