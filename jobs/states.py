"""A job's life: its states, what may happen to it in each, and what follows. The store (store/sqlite.py)
writes these transitions down, each as one transaction that changes nothing in another state; nothing else
changes a job's state.

A job is `queued` from the moment that it is written down until an executor begins it, `running` during each
attempt, and then has ended. Readers are told of a state only after it was written down.

Locks are taken in this order, and no other: `ActiveJobs._changing` (one change of a state at a time, from the
transaction to what this process has in memory), the database's, `ActiveJobs.changed` (what is in memory), an
event stream's. While holding one, nothing waits for a drawing, a reader or a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["queued", "running", "finished", "stopped", "failed"]
ENDED: tuple[State, ...] = ("finished", "stopped", "failed")
"""States that nothing follows."""


@dataclass(frozen=True)
class Transition:
    """before: the state in which it may happen. after: the states that may follow. when: what it means."""

    before: State
    after: tuple[State, ...]
    when: str


CLAIM = Transition("queued", ("running",), "It is the next one, and an executor begins an attempt.")
STOP = Transition("queued", ("stopped",), "Somebody stopped it while it waited.")
REFUSE = Transition(
    "queued",
    ("failed", "stopped"),
    "It won't be drawn: its model can't be fetched, it waited too long, or nobody can come back for it.",
)
FINISH = Transition("running", ENDED, "Its attempt came to an end: with pictures, by a stop, or in words.")
REQUEUE = Transition(
    "running",
    ("queued", "stopped"),
    "What drew it was lost, or the server ends: it waits again in its old place, unless it was asked to stop "
    "meanwhile.",
)
TRANSITIONS = {"claim": CLAIM, "stop": STOP, "refuse": REFUSE, "finish": FINISH, "requeue": REQUEUE}
"""All there are, by name. A job that runs and is asked to stop stays `running`, with a mark, until its
attempt has ended within a step."""
