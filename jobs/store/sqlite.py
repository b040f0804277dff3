"""Jobs written down in SQLite: who waits, who draws, what became of it, and when each person last had a turn.
Each call is one transaction. Who is next is the policy's to say; the file itself is database.py's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from jobs.states import CLAIM, FINISH, REFUSE, REQUEUE, STOP, State, Transition
from jobs.store.database import Database
from jobs.store.job_json import to_json
from jobs.store.models import MOST_LISTED, Ended, Lifetime, Owner, Policy, QueueSnapshot, Record
from jobs.store.rows import COLUMNS, ended_of, fault, record_of
from pipeline.errors import Busy, StoreError
from pipeline.request import Job

log = logging.getLogger("stepwise")

CHANGING = "place, attempt, kills, lost, overtaken, since"
"""What may change of a job while it waits, behind its place."""
MOST_SERVED = 2000
"""Sessions whose last turn `tidy` leaves. Who is forgotten counts as never served, and would have been the
first of those remembered anyway."""
LATEST = 1e12
"""Seconds since the epoch that no clock shows."""
SAMPLE = 20
"""Pictures from whose drawing it is told when a place will be free."""


class SqliteStore:
    """A `models.Store` in one file. What a process wrote survives its kill; a power cut takes at most the
    last moments, and nothing of what `add` and `end` wrote. Every call raises StoreError where the file can't
    be used, and those that write DiskFull where the disk is full."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            path: the file, on a local disk; it and its folder are made where they are missing.
            clock: seconds since the epoch.

        Raises:
            StoreError: the file is damaged, of a newer version, or can't be opened; it stays as it is.
        """
        self._database, self._clock = Database(path), clock
        self._seen: dict[str, dict[int, tuple[tuple, Record]]] = {}
        try:
            self._set_aside()
        except BaseException:
            self._database.close()
            raise

    def add(self, job: Job, line: str, owner: Owner, lifetime: Lifetime, room: int, each: int) -> Record:
        # Durable: its client is told that the job is written down.
        with self._database.writing(durable=True):
            if known := self._one(job.id):
                return known
            count = "SELECT count(*) FROM jobs WHERE state = 'queued' AND "
            if self._database.value(count + "person = ?", owner.person) >= each:
                persons = self._database.value(
                    "SELECT count(DISTINCT person) FROM jobs WHERE state = 'queued' AND line = ?", line
                )
                raise Busy(
                    f"You have {_drawings(each)} waiting already, as many as one person may have here. Stop "
                    "one, or wait until one of them is drawn.",
                    self._seconds_each(line, max(1, persons)),
                )
            if self._database.value(count + "line = ?", line) >= room:
                raise Busy(
                    f"{_drawings(room)} {'is' if room == 1 else 'are'} waiting already, as many as this "
                    "server takes.",
                    self._seconds_each(line, 1),
                )
            now, text = self._clock(), json.dumps(to_json(job), ensure_ascii=False)
            self._database.run(
                "INSERT INTO jobs (id, line, person, session, first, lifetime, state, created, job) "
                "VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                *(job.id, line, owner.person, owner.session, owner.first, lifetime, now, text),
            )
            return self._known(job.id)

    def claim(self, line: str, policy: Policy, resident: Collection[str] = ()) -> Record | None:
        with self._database.writing():
            now = self._clock()
            waiting = self._waiting(line)
            if not waiting:
                return None
            snapshot = self._snapshot(waiting, resident, now)
            choice = policy(waiting, snapshot)
            if choice is None:
                return None
            if not any(record.job.id == choice.job for record in waiting):
                raise ValueError(f"The policy chose {choice.job[:8]!r}, which doesn't wait in line {line!r}.")
            self._database.run("UPDATE jobs SET attempt = attempt + 1 WHERE id = ?", choice.job)
            self._change(CLAIM, "running", choice.job, started=now)
            for skipped in choice.skipped:
                self._database.run(
                    "UPDATE jobs SET overtaken = overtaken + 1, since = coalesce(since, ?) "
                    "WHERE id = ? AND state = 'queued'",
                    *(now, skipped),
                )
            record = self._known(choice.job)
            # Later than every turn before it, also where the clock was set back: it is the order that counts.
            latest = self._database.value("SELECT max(at) FROM served") or 0.0
            self._database.run(
                "INSERT OR REPLACE INTO served (person, session, at) VALUES (?, ?, ?)",
                *(record.owner.person, record.owner.session, max(now, latest + 1e-6)),
            )
            return record

    def finish(
        self, job: str, attempt: int, state: State, error: str | None = None, code: str | None = None
    ) -> bool:
        # Durable: a finished job is never drawn again.
        with self._database.writing(durable=True):
            return self._change(
                FINISH, state, job, attempt, ended=self._clock(), error=error, code=code, stop=0
            )

    def requeue(self, job: str, attempt: int, killed: bool = False, lost: bool = False) -> bool:
        with self._database.writing():
            known = self._one(job)
            if known is None or known.attempt != attempt:
                return False
            return self._change(
                REQUEUE,
                "stopped" if known.stop else "queued",
                job,
                attempt,
                kills=known.kills + killed,
                lost=known.lost + lost,
                stop=0,
                started=None,
                ended=self._clock() if known.stop else None,
            )

    def stop(self, job: str) -> Record | None:
        with self._database.writing():
            if not self._change(STOP, "stopped", job, ended=self._clock()):
                self._database.run("UPDATE jobs SET stop = 1 WHERE id = ? AND state = 'running'", job)
            return self._one(job)

    def refuse(self, job: str, error: str, code: str | None, state: State = "failed") -> bool:
        with self._database.writing():
            return self._change(REFUSE, state, job, ended=self._clock(), error=error, code=code)

    def move(self, job: str, line: str) -> bool:
        with self._database.writing():
            changed = self._database.run(
                "UPDATE jobs SET line = ? WHERE id = ? AND state = 'queued'", line, job
            )
        return changed == 1

    def get(self, job: str) -> Record | None:
        with self._database.reading():
            return self._one(job)

    def waiting(self, line: str) -> list[Record]:
        with self._database.reading():
            return self._waiting(line)

    def lines(self) -> list[str]:
        with self._database.reading():
            return [
                line
                for (line,) in self._database.rows("SELECT DISTINCT line FROM jobs WHERE state = 'queued'")
            ]

    def running(self) -> list[Record]:
        return self._several("state = 'running' ORDER BY place")

    def snapshot(self, waiting: Sequence[Record], resident: Collection[str]) -> QueueSnapshot:
        with self._database.reading():
            return self._snapshot(waiting, resident, self._clock())

    def listed_for(self, owner: Owner) -> list[Record]:
        """As of `models.Store`; nothing for an address without a session, which may be many people's."""
        newest = "ORDER BY place DESC LIMIT ?"
        if owner.person.startswith("user:"):
            return self._several(f"person = ? {newest}", owner.person, MOST_LISTED)
        if not owner.session:
            return []
        theirs = "person = ? AND session = ?"
        return self._several(f"{theirs} {newest}", owner.person, owner.session, MOST_LISTED)

    def ended(self) -> list[Ended]:
        with self._database.reading():
            query = "SELECT id, ended FROM jobs WHERE ended IS NOT NULL ORDER BY ended, place"
            return [ended_of(row) for row in self._database.rows(query)]

    def forget(self, jobs: Collection[str]) -> int:
        with self._database.writing():
            before = self._database.free()
            for job in jobs:
                self._database.run("DELETE FROM jobs WHERE id = ? AND ended IS NOT NULL", job)
            return self._database.free() - before

    def size(self) -> int:
        return self._database.size()

    def tidy(self) -> None:
        with self._database.writing():
            self._database.run(
                "DELETE FROM served WHERE at < (SELECT at FROM served ORDER BY at DESC LIMIT 1 OFFSET ?)",
                MOST_SERVED - 1,
            )
        self._database.shrink()

    def close(self) -> None:
        self._database.close()

    def _set_aside(self) -> None:
        """What another version wrote down, or a bad disk, and nobody can read any more, fails in words; the
        rest goes on. Its row keeps the settings as they are."""
        with self._database.writing(durable=True):
            for row in self._database.rows(f"SELECT {COLUMNS} FROM jobs WHERE ended IS NULL"):
                if not (words := fault(row)):
                    continue
                error = (
                    f"Another version of Stepwise wrote this job down, or the disk failed: this one can't "
                    f"read {words} of it. Draw it again."
                )
                self._database.run(
                    "UPDATE jobs SET state = 'failed', stop = 0, ended = ?, error = ?, code = ? "
                    "WHERE place = ?",
                    *(self._clock(), error, StoreError.code, row[0]),
                )
                log.warning("Job %.8s, which waited or was drawn, fails: %s can't be read.", row[1], words)
            # The order of turns is told by comparing them.
            self._database.run("DELETE FROM served WHERE typeof(at) != 'real' OR abs(at) > ?", LATEST)

    # Within a transaction.

    def _change(
        self, transition: Transition, after: State, job: str, attempt: int | None = None, **columns: Any
    ) -> bool:
        """Moves a job to its next state, with these columns. False: it isn't in the state before, or at
        another attempt, and nothing is changed.

        Raises:
            ValueError: this transition doesn't lead to that state.
        """
        if after not in transition.after:
            raise ValueError(f"A job that was {transition.before!r} can't become {after!r} by this.")
        which = "id = ? AND state = ?" + ("" if attempt is None else " AND attempt = ?")
        values = (job, transition.before) if attempt is None else (job, transition.before, attempt)
        names = ", ".join(f"{name} = ?" for name in ("state", *columns))
        changed = self._database.run(
            f"UPDATE jobs SET {names} WHERE {which}", after, *columns.values(), *values
        )
        return changed == 1

    def _one(self, job: str) -> Record | None:
        rows = self._database.rows(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", job)
        return record_of(rows[0]) if rows else None

    def _known(self, job: str) -> Record:
        record = self._one(job)
        assert record is not None
        return record

    def _several(self, which: str, *values: Any) -> list[Record]:
        with self._database.reading():
            rows = self._database.rows(f"SELECT {COLUMNS} FROM jobs WHERE {which}", *values)
            return [record_of(row) for row in rows]

    def _waiting(self, line: str) -> list[Record]:
        # Each record is built once, and again where its row changed, by whomever.
        before = self._seen.get(line, {})
        rows = self._database.rows(
            f"SELECT {CHANGING} FROM jobs WHERE line = ? AND state = 'queued' ORDER BY place", line
        )
        now: dict[int, tuple[tuple, Record]] = {}
        for row in rows:
            seen = before.get(row[0])
            if seen is None or seen[0] != row:
                whole = self._database.rows(f"SELECT {COLUMNS} FROM jobs WHERE place = ?", row[0])
                seen = row, record_of(whole[0])
            now[row[0]] = seen
        self._seen[line] = now
        return [record for _, record in now.values()]

    def _snapshot(self, waiting: Sequence[Record], resident: Collection[str], now: float) -> QueueSnapshot:
        # Only of those who wait: their number is bounded, that of those who were ever served is not.
        last: dict[str | tuple[str, str], float | None] = {}
        for person, session in {(record.owner.person, record.owner.session) for record in waiting}:
            turns = "SELECT max(at) FROM served WHERE person = ?"
            last[person, session] = self._database.value(f"{turns} AND session = ?", person, session)
            if person not in last:
                last[person] = self._database.value(turns, person)
        served = {key: at for key, at in last.items() if at is not None}
        running = self._database.rows("SELECT person FROM jobs WHERE state = 'running' ORDER BY place")
        return QueueSnapshot(served, [person for (person,) in running], frozenset(resident), now)

    def _seconds_each(self, line: str, turns: int) -> float | None:
        """What so many turns take by the last pictures of this line; None where there is none."""
        seconds = self._database.value(
            "SELECT avg(ended - started) FROM (SELECT ended, started FROM jobs WHERE line = ? "
            "AND state = 'finished' ORDER BY ended DESC LIMIT ?)",
            *(line, SAMPLE),
        )
        return None if seconds is None else turns * max(0.0, seconds)


def _drawings(number: int) -> str:
    return f"{number} drawing" if number == 1 else f"{number} drawings"
