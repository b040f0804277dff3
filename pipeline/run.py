"""One run of a job: its events as they come to be, and the flag that ends it: what an executor draws with,
and what `Engine.start` gives to whoever reads along.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pipeline.errors import DrawingFailed, StepwiseError, Stopped
from pipeline.event_stream import EventStream
from pipeline.events import Event, Phase
from pipeline.library_errors import explained
from pipeline.request import Job

log = logging.getLogger("stepwise")

Emit = Callable[[Event], None]
"""Takes an event, and neither waits nor raises."""


class Cancel:
    """A flag that whoever wants a run to end sets, and that the run looks at between steps, in every phase.
    Safe to use from any thread."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []

    def set(self) -> None:
        """Asks the run to end; returns at once. Setting it again does nothing."""
        with self._lock:
            self._set.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    @property
    def is_set(self) -> bool:
        return self._set.is_set()

    def raise_if_cancelled(self) -> None:
        """Raises Stopped once the flag is set."""
        if self._set.is_set():
            raise Stopped

    @contextlib.contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Within the block, `set` calls this too, once, in the thread that sets: for whoever waits for
        something else there. It is called at once where the flag is set already, and mustn't wait."""
        self.call(callback)
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):  # it was called
                self._callbacks.remove(callback)

    def call(self, callback: Callable[[], object]) -> None:
        """As `calling`, for as long as the flag lasts."""
        with self._lock:
            if not self._set.is_set():
                self._callbacks.append(callback)
                return
        callback()


class Progress(abc.ABC):
    """Who weights are fetched and loaded for: a run of a job, or a model that is made ready ahead.

    cancel: the flag that ends it.
    """

    def __init__(self, cancel: Cancel) -> None:
        self.cancel = cancel
        self._abandon: Callable[[], None] = lambda: None

    @abc.abstractmethod
    def update(self, **changes: Any) -> None:
        """How far it is: phase, with done and total in bytes while downloading, in networks while loading."""

    def raise_if_cancelled(self) -> None:
        """Raises Stopped once it was cancelled."""
        self.cancel.raise_if_cancelled()

    def on_abandon(self, abandon: Callable[[], None]) -> None:
        """abandon: ends the wait of whoever waits for this, as of `abandonable`; it mustn't wait itself."""
        self._abandon = abandon

    def abandonable(self) -> contextlib.AbstractContextManager[None]:
        """Within the block, whoever waits for this goes at once when it is cancelled, while the block itself
        goes on to its end: around what can't be interrupted, such as reading a file of weights."""
        return self.cancel.calling(self._abandon)


class Preparation(Progress):
    """A model that is made ready ahead of its first job."""

    def __init__(self, report: Callable[[Phase, int, int], None], cancel: Cancel) -> None:
        """report: is told phase, done and total, as of `Progress.update`."""
        super().__init__(cancel)
        self._report = report

    def update(self, **changes: Any) -> None:
        self._report(changes["phase"], changes.get("done", 0), changes.get("total", 0))


class Run(Progress):
    """A job being drawn, for the executor that draws it. Safe to use from any thread.

    job: what is drawn. cancel: the flag that ends it.
    """

    def __init__(self, job: Job, emit: Emit, cancel: Cancel) -> None:
        """emit: is given each event, one at a time, in their order, from whichever thread makes it."""
        super().__init__(cancel)
        self.job = job
        self._emit = emit
        self._event = Event(job, warnings=job.warnings)
        self._lock = threading.RLock()
        self._began: float | None = None

    @property
    def latest(self) -> Event:
        """The newest event."""
        return self._event

    def begin(self) -> None:
        """The seconds of the run count from now."""
        self._began = time.monotonic()

    def update(self, **changes: Any) -> None:
        """Emits a new event: the last one with these fields changed. After the last phase, nothing."""
        with self._lock:
            if self._event.last:
                return
            if self._began is not None:
                changes["seconds"] = time.monotonic() - self._began
            self._event = replace(self._event, **changes)
            self._emit(self._event)

    @contextlib.contextmanager
    def concluded(self, model: str, license_url: str) -> Iterator[None]:
        """However the block ends, the run has its last event then: finished, stopped, or failed in words.

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
        """Emits the last event. error, code: why it failed, in words and for programs."""
        self.update(phase=phase, error=error, code=code, eta=0.0 if phase == "finished" else None)


class Drawing(EventStream):
    """A job that `Engine.start` draws in a thread of its own: its events, for its readers, and `stop`."""

    def __init__(self, job: Job) -> None:
        super().__init__(Event(job, warnings=job.warnings))
        self.job = job
        self.cancel = Cancel()

    def stop(self) -> None:
        """Ends the drawing within one step; returns at once. Its last preview stays in the last event."""
        self.cancel.set()
