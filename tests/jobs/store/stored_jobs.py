"""What the tests of the store share: a job is added, and claimed."""

from __future__ import annotations

from jobs.scheduling.fair_share import Fair
from jobs.store.models import Record, Store
from tests.jobs.waiting import LINE, job, owner

ROOMY = (10_000, 10_000)
SEVERAL = Fair(running_each=1000)


def add(store: Store, person: str = "A", model: str = "sketch", line: str = LINE) -> Record:
    return store.add(job(model), line, owner(person), "visit", *ROOMY)


def claim(store: Store, line: str = LINE) -> Record:
    record = store.claim(line, SEVERAL)
    assert record is not None
    return record
