"""What a server finds in its folder when it starts: jobs that the last one was drawing, jobs that wait, and
jobs that have ended, whose events are in their logs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from jobs.states import ENDED
from jobs.store.event_log import last_event
from jobs.store.log_names import log_path
from jobs.store.models import WITH_VISITOR, Record, Store
from pipeline.engine import Engine
from pipeline.errors import DrawingFailed, ModelUnavailable, StepwiseError, WorkerDied
from pipeline.events import Event

NOBODY = "The server was restarted, and whoever asked for this can't come back for it. Draw it again."
MOST_ATTEMPTS = 3
"""Times that a job is begun, where it is the whole server that ended without being told to: it need not be
the job's fault."""


def recover(
    store: Store,
    logs: Path,
    engine: Engine,
    lines: Collection[str],
    ended: Callable[[Record, Event], None],
    lost: Callable[[Record], None],
) -> list[Record]:
    """Requeues what the last server was drawing, unless that had just ended; fails what can't be drawn by
    this one, and stops what nobody can come back for.

    Args:
        lines: those that something here draws. ended: told of each job that ends by this. lost: told of each
            whose attempt was lost.

    Returns:
        The jobs that wait.
    """
    for record in store.running():
        last = _end_of(record, logs)
        if last is None:
            lost(record)
            store.requeue(record.job.id, record.attempt, lost=True)
            continue
        store.finish(record.job.id, record.attempt, last.phase, last.error, last.code)  # type: ignore[arg-type]
        ended(record, last)
    waiting = []
    for record in [record for line in store.lines() for record in store.waiting(line)]:
        job, line = record.job, record.line
        if record.lifetime == "attached":
            if store.refuse(job.id, NOBODY, None, "stopped"):
                ended(record, Event(job, "stopped", error=NOBODY))
        elif reason := _gone(record, engine, lines):
            if store.refuse(job.id, reason, ModelUnavailable.code):
                ended(record, Event(job, "failed", error=reason, code=ModelUnavailable.code))
        elif (here := engine.line(job.model)) == line or store.move(job.id, here):
            waiting.append(replace(record, line=here))
    return waiting


def ended_event(record: Record, logs: Path) -> Event:
    """The last event of a job that has ended: with its pictures where its log still has them."""
    event = _logged(record, logs)
    if event is not None:
        return event
    if record.state not in ENDED:  # a full disk kept its end from being written down
        words = "How it ended couldn't be written down. Draw it again."
        return Event(record.job, "failed", error=words, code=DrawingFailed.code)
    error = "Its pictures are no longer there." if record.state == "finished" else record.error
    return Event(record.job, phase=record.state, error=error, code=record.code)  # type: ignore[arg-type]


def log_of(record: Record, logs: Path) -> Path | None:
    """Return the file of its last attempt's events, or None before the first."""
    return log_path(logs, record.job.id, record.attempt) if record.attempt else None


def _logged(record: Record, logs: Path) -> Event | None:
    """Return the last event of its log, or None if that is no end."""
    path = log_of(record, logs)
    event = last_event(path) if path is not None and path.exists() else None
    return event if event is not None and event.last else None


def _end_of(record: Record, logs: Path) -> Event | None:
    """Return how a job that the last server was drawing has ended, or None if it is drawn again."""
    event = _logged(record, logs)
    if event is not None:
        return event
    event = Event(record.job)
    if record.stop:
        return replace(event, phase="stopped")
    if record.lost + 1 >= MOST_ATTEMPTS:
        words = f"The server ended {record.lost + 1} times while it drew this; it isn't tried again."
        return replace(event, phase="failed", error=words, code=WorkerDied.code)
    return None


def _gone(record: Record, engine: Engine, lines: Collection[str]) -> str:
    """Return why a job that waited can't be drawn by this server, in words; empty where it can."""
    if record.line == WITH_VISITOR:
        return "The Space restarted while this waited for a GPU of your quota. Draw again."
    try:
        engine.checked(record.job)
    except StepwiseError as error:
        return str(error)
    here = engine.line(record.job.model)
    if here not in lines or here == WITH_VISITOR:  # it would need its visitor's call
        return "The server has another device since it restarted. Draw again."
    return ""
