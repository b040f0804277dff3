"""One attempt at a job: drawn by an executor, each event written to the attempt's log and shown to the job's
readers; and what its end means: that of the job, or another attempt.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

from jobs.eta.estimator import Estimator
from jobs.lifecycle.active_jobs import Register
from jobs.lifecycle.subscription import Active
from jobs.store.event_log import LogWriter
from jobs.store.log_names import log_path
from jobs.telemetry.metrics import Metrics
from jobs.workers.executors import Executor
from pipeline.errors import DiskFull, DrawingFailed, StepwiseError, WorkerDied
from pipeline.events import Event

log = logging.getLogger("stepwise")

MOST_KILLS = 2
"""Times that one job may take down what draws it, a worker or a process' hold of its device; it is set aside
then."""


class Attempt:
    """Of a job that was claimed. Runs in its executor's thread, to its end."""

    def __init__(
        self,
        register: Register,
        active: Active,
        executor: Executor,
        most_seconds: float,
        estimator: Estimator,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            most_seconds: that a drawing may take (`Rules.draw`); the watch ends it then.
        """
        self._register, self._active, self._executor = register, active, executor
        self._most_seconds, self._estimator, self._metrics = most_seconds, estimator, metrics
        self._job = active.record.job

    def run(self, loaded: bool, elsewhere: bool) -> None:
        """Draws, and writes down and tells what became of it.

        Args:
            loaded: its model could begin without loading. elsewhere: it is drawn by a provider.
        """
        path = log_path(self._register.logs, self._job.id, self._active.record.attempt)
        with contextlib.ExitStack() as stack:
            writer = None
            try:
                writer = stack.enter_context(LogWriter(path))
                last = self._draw(writer, loaded, elsewhere)
            except StepwiseError as error:
                last = replace(self._active.box.latest, phase="failed", error=str(error), code=error.code)
            except OSError as error:
                last = self._disk_failed(error)
            except Exception as error:
                log.exception("Job %s could not be drawn", self._job.short_id)
                why = f"The drawing failed ({type(error).__name__}); the server's log has the details."
                last = self._active.failed(f"{why} Try again.", DrawingFailed.code)
            if last is not None:
                self._conclude(last, writer)

    def _draw(self, writer: LogWriter, loaded: bool, elsewhere: bool) -> Event | None:
        """The attempt's last event; None: it was not begun, and its job waits again."""
        active, job = self._active, self._job
        self._metrics.begun(active.record, loaded or elsewhere)
        try:
            drawing = self._executor.start(job)
        except WorkerDied as error:  # it ended before this job was begun: not the job's fault
            log.warning("Job %s waits again: %s", job.short_id, error)
            self._register.again(active, killed=False)
            return None
        observer, steps = self._estimator.observe(job, loaded), self._metrics.steps(job.model)
        self._register.begun(active, drawing, self._executor)
        for event in drawing.events():
            observer.see(event)
            steps.see(event)
            if event.last:
                return event
            writer.append(active.as_shown(event))  # first: whoever sees a picture may ask for it at once
            active.show(event)
        raise AssertionError("a drawing's events end with its last")

    def _conclude(self, last: Event, writer: LogWriter | None) -> None:
        """What became of it: written down first, then told."""
        register, active = self._register, self._active
        replaced = last.code != WorkerDied.code or self._executor.lose()
        if register.cut:
            register.free(active)
            return  # it was put back: the next server draws it
        if last.code == WorkerDied.code and not active.box.stopping and not active.late:
            self._metrics.lost("worker")
            if active.record.kills + 1 < MOST_KILLS:
                self._draw_again(last, replaced)
                return
            words = f"It was set aside: what drew it was lost {MOST_KILLS} times. The last time: {last.error}"
            last = replace(last, error=words)
        if active.late:
            words = f"It took longer than {self._most_seconds:,.0f} s, the most that a drawing may take here."
            words += " Try fewer steps or a smaller size."
            last = replace(last, phase="failed", error=words, code="late")
        elif active.box.stopping and last.code == WorkerDied.code:
            last = replace(last, phase="stopped", error=None, code=None)
        shown = active.as_shown(last)
        try:
            if writer is not None:
                writer.append(shown)
        except OSError as error:
            shown = self._disk_failed(error)
        register.end(active, shown)
        self._estimator.save()  # a killed process has no time for it

    def _draw_again(self, last: Event, replaced: bool) -> None:
        """What drew it is gone: it waits for another, or for the restart of the server."""
        active = self._active
        log.warning("Job %s is drawn again: %s", self._job.short_id, last.error)
        words = "The process that drew this ended; it was drawn again from the beginning."
        active.lost = (words if replaced else "The GPU failed while this was drawn.",)
        active.show(replace(active.box.latest, phase="queued", step=0, image=1, images=(), eta=None))
        self._register.again(active, killed=True)

    def _disk_failed(self, error: OSError) -> Event:
        if self._active.drawing is not None:
            self._active.drawing.stop()
        where = self._register.logs
        full = DiskFull(f"The disk with {where} can't be written to: {error.strerror or error}.")
        log.error("%s", full)
        return self._active.failed(str(full), full.code)
