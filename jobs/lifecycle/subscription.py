"""A job as its readers follow it: from anywhere, from its beginning or from now on, as many as want to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.store.event_log import LogReader
from jobs.store.models import Kept, Record
from jobs.workers.executors import Executor
from pipeline.drawing import Drawing
from pipeline.events import Event
from pipeline.request import Job


@dataclass
class Active:
    """A job that waits or runs, as this process has it in hand.

    box: what its readers see, over all attempts. kept: what becomes of it when nobody follows it; readers:
    how many follow it; alone: since when (time.monotonic()) nobody does, None while somebody does or nobody
    ever did. waits: since when it waits here, or did until it was begun. claimed: an attempt has it. drawing:
    that attempt's, while it runs; executor: who draws it; begun: since when.
    asked: it was asked to stop. late: it was ended for taking too long. lost: what became of the attempts
    before, in words.
    """

    record: Record
    box: Drawing
    readers: int = 0
    alone: float | None = None
    waits: float = field(default_factory=time.monotonic)
    claimed: bool = False
    drawing: Drawing | None = None
    executor: Executor | None = None
    begun: float | None = None
    asked: bool = False
    late: bool = False
    lost: tuple[str, ...] = ()

    def show(self, event: Event) -> None:
        """Tells the readers what an attempt says, and what became of those before it."""
        self.box.update(**self.as_shown(event).changes(self.box.latest))

    def as_shown(self, event: Event) -> Event:
        """An attempt's event as the readers see it."""
        return replace(event, job=self.box.job, warnings=tuple(dict.fromkeys((*self.lost, *event.warnings))))

    def failed(self, words: str, code: str) -> Event:
        """Its last event, where it has come to nothing."""
        return replace(self.box.latest, phase="failed", images=(), eta=None, error=words, code=code)

    @property
    def kept(self) -> Kept:
        return self.record.kept


@dataclass
class Following:
    """One job, to be followed. `Queue.start` and `Queue.find` make it.

    box: what its readers see. left: told each time that a reader has gone, with how many remain.
    log: the file of its last attempt's events, None before the first.
    """

    box: Drawing
    active: Active | None = None
    left: Callable[[Active], None] = lambda _: None
    log: Callable[[], Any] = field(default=lambda: None)

    @property
    def job(self) -> Job:
        return self.box.job

    @property
    def latest(self) -> Event:
        """The newest event."""
        return self.box.latest

    def stop(self) -> None:
        """Ends the job within one step, or does nothing where it has ended. Returns at once and waits for no
        disk, so that an event loop may call it."""
        self.box.stop()

    def leave(self) -> None:
        """Its last reader has gone, or whoever started it, before reading any of it."""
        if (active := self.active) is not None and not active.readers:
            active.alone = time.monotonic()
            self.left(active)

    def result(self) -> Event:
        """Waits for the last event."""
        return self.box.result()

    def events(self, again: float | None = None, from_start: bool = False) -> Followed:
        """Events from now on, for `for` and `async for`; ends after the last one. A slow reader skips to the
        newest.

        Args:
            again: seconds without news after which the newest event comes once more; None: never.
            from_start: first what the running attempt (or the last one) went through until now.
        """
        return Followed(self, again, from_start)


class Followed:
    """One reader of a job: iterate it with `for` or `async for`. Meanwhile the job is followed."""

    def __init__(self, following: Following, again: float | None, from_start: bool) -> None:
        self._following, self._again, self._from_start = following, again, from_start

    def __iter__(self) -> Iterator[Event]:
        self._come()
        try:
            yield from self._past()
            yield from self._following.box.events(self._again)
        finally:
            self._go()

    async def __aiter__(self) -> AsyncIterator[Event]:
        self._come()
        try:
            if self._from_start:  # in a thread, for an event loop waits for no disk
                for event in await asyncio.to_thread(list, self._past()):
                    yield event
            async for event in self._following.box.events(self._again):
                yield event
        finally:
            self._go()

    def _past(self) -> Iterator[Event]:
        """What the log has, without the last event: that comes from the box."""
        path = self._following.log() if self._from_start else None
        if path is not None and path.exists():
            for event in LogReader(path).read():
                if not event.last:
                    yield event

    def _come(self) -> None:
        if (active := self._following.active) is not None:
            active.readers += 1
            active.alone = None

    def _go(self) -> None:
        if (active := self._following.active) is not None:
            active.readers -= 1
            self._following.leave()
