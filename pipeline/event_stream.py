"""The newest event of a drawing, for as many readers as there are: each sees a full snapshot, and one that is
slow skips to the newest. Nobody who publishes waits for a reader, and a reader that leaves holds nothing up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from pipeline.events import Event


class EventStream:
    """Safe to use from any thread."""

    def __init__(self, first: Event) -> None:
        """first: what readers see until something is published."""
        self._event = first
        self._number = 1
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], None]] = set()

    @property
    def latest(self) -> Event:
        """The newest event."""
        return self._event

    def publish(self, event: Event) -> None:
        """Makes this the newest event. Nothing is published after the last one (`Event.last`)."""
        with self._changed:
            if self._event.last:
                return
            self._event = event
            self._number += 1
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def events(self, repeat_after: float | None = None) -> Events:
        """Return the events from now on, for `for` and `async for`; they end after the last one. Each call is
        a reader of its own.

        Args:
            repeat_after: seconds without news after which the newest event comes once more; None: never.
        """
        return Events(self, repeat_after)

    def result(self) -> Event:
        """Wait for the last event, and return it."""
        return next(event for event in self.events() if event.last)


class Events:
    """A reader of one stream: iterate it with `for` or `async for`."""

    def __init__(self, stream: EventStream, repeat_after: float | None) -> None:
        self._stream, self._repeat_after = stream, repeat_after

    def __iter__(self) -> Iterator[Event]:
        stream, number = self._stream, 0
        while True:
            with stream._changed:
                while stream._number == number:
                    if not stream._changed.wait(self._repeat_after):
                        break
                number, event = stream._number, stream._event
            yield event
            if event.last:
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        stream, number = self._stream, 0
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the reader's loop is closed: it will never read again
                stream._listeners.discard(ring)

        stream._listeners.add(ring)
        try:
            while True:
                changed.clear()
                if stream._number == number:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), self._repeat_after)
                        continue
                with stream._changed:
                    number, event = stream._number, stream._event
                yield event
                if event.last:
                    return
        finally:
            stream._listeners.discard(ring)
