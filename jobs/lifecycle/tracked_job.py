"""A job that waits or runs, as this process has it in memory besides what the store has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import replace
from typing import Any

from jobs.store.models import Lifetime, Record
from pipeline.event_stream import EventStream
from pipeline.events import Event
from pipeline.executors.executor import Executor
from pipeline.run import Cancel


class TrackedJob:
    """What is known of one job until it has ended. Its attributes are changed under `ActiveJobs.changed`.

    record: as the store had it last. stream: what its readers see, over all attempts.
    context: of the call that started it, where the job is drawn within that; None elsewhere.
    readers: how many follow it; alone_since: since when (time.monotonic()) nobody does, None while somebody
    does or nobody ever did. waits_since: since when it waits here, or did until it was begun.
    claimed: an attempt has it. attempt: ends that attempt, while it is drawn; executor: what draws it;
    begun_at: since when. stop_asked: somebody stopped it. late: it was ended for taking too long.
    lost_attempts: what became of the attempts before, in words.
    """

    def __init__(
        self, record: Record, on_stop: Callable[[TrackedJob], None], context: Context | None = None
    ) -> None:
        """on_stop: is told when somebody stops the job, in that thread; it mustn't wait."""
        self.record = record
        self.stream = EventStream(Event(record.job, warnings=record.job.warnings))
        self.context = context
        self.readers = 0
        self.alone_since: float | None = None
        self.waits_since = time.monotonic()
        self.claimed = False
        self.attempt: Cancel | None = None
        self.executor: Executor | None = None
        self.begun_at: float | None = None
        self.stop_asked = False
        self.late = False
        self.lost_attempts: tuple[str, ...] = ()
        self._on_stop = on_stop
        self._showing = threading.Lock()

    @property
    def id(self) -> str:
        return self.record.job.id

    @property
    def model(self) -> str:
        return self.record.job.model

    @property
    def lifetime(self) -> Lifetime:
        return self.record.lifetime

    @property
    def latest(self) -> Event:
        """What its readers see now."""
        return self.stream.latest

    def stop(self) -> None:
        """Asks for the job's end, within a step where it is drawn; returns at once."""
        self._on_stop(self)

    def show(self, event: Event) -> None:
        """Shows its readers an attempt's event, as `as_shown`."""
        with self._showing:
            self.stream.publish(self.as_shown(event))

    def update(self, **changes: Any) -> None:
        """Shows its readers what they see now with these fields changed."""
        with self._showing:
            self.stream.publish(replace(self.latest, **changes))

    def as_shown(self, event: Event) -> Event:
        """An attempt's event as the readers see it: with what became of the attempts before."""
        warnings = tuple(dict.fromkeys((*self.lost_attempts, *event.warnings)))
        return replace(event, job=self.record.job, warnings=warnings)

    def failed(self, words: str, code: str) -> Event:
        """Return the job's last event, where it has come to nothing."""
        return replace(self.latest, phase="failed", images=(), eta=None, error=words, code=code)
