"""What is written down of a job besides the job itself, and the few calls that a store answers.

A store is the one truth about who waits and what became of it. SQLite stands behind it (sqlite.py);
whatever else can do these calls, can stand there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from jobs.states import State
from pipeline.request import Job

WITH_VISITOR = "zerogpu"
"""The line whose jobs are drawn inside their visitors' own calls: the quota is theirs."""
MOST_LISTED = 200
"""Jobs of one owner that are listed: each may have a prompt of 10,000 characters."""
Lifetime = Literal["detached", "page", "attached"]
"""What becomes of a job that nobody follows any more. detached: it is drawn all the same, for its client
chose its id and comes back with it. page: it was started on the page, whose visitor may be reloading, so it
is drawn for a while. attached: it ends with the call that started it, for nobody else knows its id."""


@dataclass(frozen=True)
class Owner:
    """Whose job it is. person: "user:NAME" of who is logged in, else "address:IP"; session: which of that
    person's, empty where there is none; both as owner_names.py bounds them. first: goes before everyone who
    doesn't."""

    person: str
    session: str = ""
    first: bool = False


@dataclass(frozen=True)
class Record:
    """A job as the store has it. Times are seconds since the epoch (time.time()).

    line: in front of which device it waits (`Engine.line`). place: its number in the order of arrival.
    attempt: how often it was begun. kills: how many of those attempts ended with the process that drew it;
    lost: how many with the server, which was not told to end.
    stop: it was asked to stop, and is running still. overtaken: how many that were behind it in the fair
    order were drawn before it, because their model was ready; since: when the first of them was. error,
    code: why it failed, as of Event.
    """

    job: Job
    line: str
    owner: Owner
    lifetime: Lifetime
    state: State
    place: int
    created: float
    attempt: int = 0
    kills: int = 0
    lost: int = 0
    stop: bool = False
    overtaken: int = 0
    since: float | None = None
    started: float | None = None
    ended: float | None = None
    error: str | None = None
    code: str | None = None


class Ended(NamedTuple):
    """A job that ended. job: its id. at: seconds since the epoch."""

    job: str
    at: float


def describe(record: Record) -> dict[str, Any]:
    """A job as `/jobs` lists it."""
    return {
        "job": record.job.id,
        "state": record.state,
        "model": record.job.model,
        "prompt": record.job.prompt,
        "seed": record.job.seed,
        "created": record.created,
        "ended": record.ended,
        "error": record.error,
    }


@dataclass(frozen=True)
class QueueSnapshot:
    """What the policy knows besides who waits.

    served: when each person, and each (person, session), of those who wait was last given a turn; who never
    was isn't in it.
    running: persons, once for each of their jobs that is being drawn. resident: models that are ready on the
    device that asks. now: seconds since the epoch.
    """

    served: Mapping[str | tuple[str, str], float]
    running: Sequence[str]
    resident: Collection[str]
    now: float


@dataclass(frozen=True)
class Choice:
    """Which job is next. skipped: ids of those that the fair order had before it."""

    job: str
    skipped: tuple[str, ...] = ()


Policy = Callable[[Sequence[Record], QueueSnapshot], Choice | None]
"""Who of those that wait (in order of arrival) is next; None: nobody now."""


class Store(Protocol):
    """Safe to use from any thread; each call is one transaction."""

    def add(self, job: Job, line: str, owner: Owner, lifetime: Lifetime, room: int, each: int) -> Record:
        """Writes a job down, on disk when this returns. A job whose id is there already stays as it is, and
        is returned.

        Args:
            room: jobs that may wait in this line. each: jobs of one person that may wait, in all lines.

        Raises:
            Busy: no room (pipeline.errors).
        """

    def claim(self, line: str, policy: Policy, resident: Collection[str] = ()) -> Record | None:
        """Begins an attempt of the job that the policy chooses; None: it chose none. No job is given out
        twice."""

    def finish(
        self, job: str, attempt: int, state: State, error: str | None = None, code: str | None = None
    ) -> bool:
        """An attempt ended this way. False: it isn't the running one, and nothing is changed."""

    def requeue(self, job: str, attempt: int, killed: bool = False, lost: bool = False) -> bool:
        """An attempt ended without result: the job waits again, in its old place; one that was asked to stop
        meanwhile ends as stopped instead. killed: it took the process that drew it down. lost: the server
        ended amid it, and wasn't told to. False: as of `finish`."""

    def stop(self, job: str) -> Record | None:
        """What waits is stopped now; what runs is asked to stop. The record after it, None for an unknown
        job; one that has ended stays as it is."""

    def refuse(self, job: str, error: str, code: str | None, state: State = "failed") -> bool:
        """What waits ends as this. False: it doesn't wait, and nothing is changed."""

    def move(self, job: str, line: str) -> bool:
        """What waits does so in this line from now on, by its old place. False: as of `refuse`."""

    def get(self, job: str) -> Record | None:
        """Return the record, or None if no job has this id."""

    def waiting(self, line: str) -> list[Record]:
        """In order of arrival."""

    def lines(self) -> list[str]:
        """Where jobs wait."""

    def running(self) -> list[Record]:
        """In all lines."""

    def snapshot(self, waiting: Sequence[Record], resident: Collection[str]) -> QueueSnapshot:
        """As of now, for whoever wants to foresee the policy for these."""

    def listed_for(self, owner: Owner) -> list[Record]:
        """Return the jobs of a logged-in user, else of this very session; the newest first, as many as are
        listed."""

    def ended(self) -> list[Ended]:
        """All that ended, those that ended first in front."""

    def forget(self, jobs: Collection[str]) -> int:
        """Removes jobs that ended.

        Returns:
            Bytes that `tidy` will give back for it.
        """

    def size(self) -> int:
        """Bytes that it takes on disk."""

    def tidy(self) -> None:
        """Forgets turns that are too many, and gives back to the disk what holds nothing."""

    def close(self) -> None:
        """Everything is on disk."""
