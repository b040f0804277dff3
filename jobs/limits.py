"""What an owner may decide about the queue."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds of a queue. Seconds, bytes, numbers of jobs.

    room: jobs that may wait in front of each device. each: those of one person, in front of all of them.
    running_each: jobs of one person that are drawn at the same time. abandoned: seconds after which a running
    job ends that nobody follows any more; None: as soon as its caller has gone, and never where it was
    started on the page. wait, draw: seconds after which a job fails that waits, or is drawn. rate:
    jobs that one person may start, as of rate.RateLimit; empty: as many as they like. first:
    names of logged-in users who go before everyone else. most_bytes, most_seconds: what is kept of jobs,
    their records included, and for how long after their end. log_prompts: whether the line that is logged of
    an ended job has its prompt.
    """

    room: int = 50
    each: int = 20
    running_each: int = 1
    abandoned: float | None = None
    wait: float = 6 * 3600
    draw: float = 3600
    rate: str = ""
    first: frozenset[str] = frozenset()
    most_bytes: int = 2 * 10**9
    most_seconds: float = 24 * 3600
    log_prompts: bool = False
