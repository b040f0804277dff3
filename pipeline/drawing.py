"""A job being drawn: the one-slot box between the thread that draws and everyone who looks.

The drawing side calls `update`, `check` and `finish`; the reading side `events`, `stop` and `latest`. A
reader that stops reading, is closed or is collected holds nothing up: nobody waits for readers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

from pipeline.errors import DrawingFailed, StepwiseError, Stopped
from pipeline.events import Event, Phase
from pipeline.library_errors import explained
from pipeline.request import Job

log = logging.getLogger("stepwise")


class Drawing:
    """One job on its way to pictures. Made by `Engine.start`."""

    preloads = ""
    """It draws: see `line.Waiting`."""

    def __init__(self, job: Job, on_stop: Callable[[], None] = lambda: None) -> None:
        """on_stop: called once the stop flag is set, to wake whoever waits with it."""
        self.job = job
        self._event = Event(job, warnings=job.warnings)
        self._number = 1
        self._changed = threading.Condition()
        self._listeners: set[Callable[[], None]] = set()
        self._stop = threading.Event()
        self._on_stop = on_stop
        self._interrupt: Callable[[], object] = lambda: None
        self._began: float | None = None

    # The reading side.

    @property
    def latest(self) -> Event:
        """The newest event."""
        return self._event

    @property
    def eta(self) -> float | None:
        """Seconds that are left of its turn, as of the newest event; None while unknown."""
        return self._event.eta

    def events(self, again: float | None = None) -> Events:
        """This drawing's events from now on, for `for` and `async for`; ends after the last one. Each
        call is a reader of its own; a slow one skips to the newest.

        Args:
            again: seconds without news after which the newest event comes once more; None: never.
        """
        return Events(self, again)

    def stop(self) -> None:
        """Ends the drawing within one step; returns at once. Its last preview stays in the last event."""
        self._stop.set()
        self._on_stop()
        self._interrupt()

    def result(self) -> Event:
        """Waits for the last event."""
        return next(event for event in self.events() if event.last)

    # The drawing side.

    def begin(self) -> None:
        """The drawing's turn has come: its seconds count from now."""
        self._began = time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raises Stopped once `stop` was called."""
        if self._stop.is_set():
            raise Stopped

    @contextlib.contextmanager
    def interruptible(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Within the block `stop` calls `interrupt` too, in the stopper's thread: for whoever waits there and
        can't `check`. Called at once where the stop came before; it mustn't wait, and may be called twice."""
        self._interrupt = interrupt
        if self._stop.is_set():
            interrupt()
        try:
            yield
        finally:
            self._interrupt = lambda: None

    def update(self, **changes: Any) -> None:
        """Posts a new event: the last one with these fields changed. After the last phase, nothing."""
        with self._changed:
            if self._event.last:
                return
            if self._began is not None:
                changes["seconds"] = time.monotonic() - self._began
            self._event = replace(self._event, **changes)
            self._number += 1
            self._changed.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    @contextlib.contextmanager
    def concluded(self, model: str, license_url: str) -> Iterator[None]:
        """However the block ends, the drawing has its last event then: finished, stopped, or failed in words.

        Args:
            model, license_url: as of `library_errors.explained`.
        """
        try:
            with explained(model, license_url):
                yield
            self.finish("finished")
        except Stopped:
            self.finish("stopped")
        except StepwiseError as error:
            details = traceback.format_exception(error.__cause__) if error.__cause__ else []
            words = self.job.without_prompts("\n".join([str(error), "".join(details)]).rstrip())
            log.warning("job %s failed: %s", self.job.short_id, words)
            self.finish("failed", str(error), error.code)
        finally:
            self.finish("failed", "The drawing ended without a result; try again.", DrawingFailed.code)

    def finish(self, phase: Phase, error: str | None = None, code: str | None = None) -> None:
        """Posts the last event. error, code: why it failed, in words and for programs."""
        self.update(phase=phase, error=error, code=code, eta=0.0 if phase == "finished" else None)


class Events:
    """A reader of one drawing: iterate it with `for` or `async for`."""

    def __init__(self, drawing: Drawing, again: float | None) -> None:
        self._drawing, self._again = drawing, again

    def __iter__(self) -> Iterator[Event]:
        drawing, number = self._drawing, 0
        while True:
            with drawing._changed:
                while drawing._number == number:
                    if not drawing._changed.wait(self._again):
                        break
                number, event = drawing._number, drawing._event
            yield event
            if event.last:
                return

    async def __aiter__(self) -> AsyncIterator[Event]:
        drawing, number = self._drawing, 0
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def ring() -> None:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the reader's loop is closed: it will never read again
                drawing._listeners.discard(ring)

        drawing._listeners.add(ring)
        try:
            while True:
                changed.clear()
                with drawing._changed:
                    news = (drawing._number, drawing._event) if drawing._number > number else None
                if news is None:
                    try:
                        await asyncio.wait_for(changed.wait(), self._again)
                    except TimeoutError:
                        yield drawing._event
                    continue
                number, event = news
                yield event
                if event.last:
                    return
        finally:
            drawing._listeners.discard(ring)
