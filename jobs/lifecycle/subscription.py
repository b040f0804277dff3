"""A job as its readers follow it: from anywhere, from its beginning or from now on, as many as want to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from jobs.lifecycle.tracked_job import TrackedJob
from jobs.store.event_log import LogReader
from pipeline.event_stream import EventStream
from pipeline.events import Event
from pipeline.request import Job


class Subscription:
    """One job, to be followed. `Queue.start` and `Queue.find` make it."""

    def __init__(
        self,
        stream: EventStream,
        log: Callable[[], Path | None] = lambda: None,
        tracked: TrackedJob | None = None,
        left: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            stream: what readers see. log: gives the file of the last attempt's events, None before the first.
            tracked: the job while it waits or runs; None: it has ended. left: told when the last reader of a
                tracked job has gone; mustn't wait.
        """
        self._stream, self._log, self._left = stream, log, left
        self.tracked = tracked

    @property
    def job(self) -> Job:
        return self._stream.latest.job

    @property
    def latest(self) -> Event:
        """The newest event."""
        return self._stream.latest

    def stop(self) -> None:
        """Ends the job within one step, or does nothing where it has ended. Returns at once and waits for no
        disk, so that an event loop may call it."""
        if self.tracked is not None:
            self.tracked.stop()

    def leave(self) -> None:
        """To be called when its last reader has gone, or whoever started it, before reading any of it."""
        if self.tracked is not None and not self.tracked.readers:
            self.tracked.alone_since = time.monotonic()
            self._left()

    def result(self) -> Event:
        """Wait for the last event, and return it."""
        return self._stream.result()

    def events(self, repeat_after: float | None = None, from_start: bool = False) -> Reader:
        """Return the events from now on, for `for` and `async for`; they end after the last one. A slow
        reader skips to the newest.

        Args:
            repeat_after: seconds without news after which the newest event comes once more; None: never.
            from_start: first what the running attempt (or the last one) went through until now.
        """
        return Reader(self, repeat_after, from_start)


class Reader:
    """One reader of a job: iterate it with `for` or `async for`. Meanwhile the job counts as followed."""

    def __init__(self, subscription: Subscription, repeat_after: float | None, from_start: bool) -> None:
        self._subscription, self._from_start = subscription, from_start
        self._events = subscription._stream.events(repeat_after)

    def __iter__(self) -> Iterator[Event]:
        self._come()
        try:
            yield from self._past()
            yield from self._events
        finally:
            self._go()

    async def __aiter__(self) -> AsyncIterator[Event]:
        self._come()
        try:
            if self._from_start:  # in a thread, for an event loop waits for no disk
                for event in await asyncio.to_thread(list, self._past()):
                    yield event
            async for event in self._events:
                yield event
        finally:
            self._go()

    def _past(self) -> Iterator[Event]:
        """What the log has, without the last event: that comes from the stream."""
        path = self._subscription._log() if self._from_start else None
        if path is not None and path.exists():
            for event in LogReader(path).read():
                if not event.last:
                    yield event

    def _come(self) -> None:
        if (tracked := self._subscription.tracked) is not None:
            tracked.readers += 1
            tracked.alone_since = None

    def _go(self) -> None:
        if (tracked := self._subscription.tracked) is not None:
            tracked.readers -= 1
            self._subscription.leave()
