"""One attempt at a job: drawn by an executor, each event written to the attempt's log and shown to the job's
readers; and what its end means: that of the job, or another attempt.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

from jobs.eta.estimator import Estimator
from jobs.lifecycle.active_jobs import ActiveJobs
from jobs.lifecycle.tracked_job import TrackedJob
from jobs.store.event_log import LogWriter
from jobs.store.log_names import log_path
from jobs.telemetry.metrics import Metrics
from pipeline.errors import DiskFull, DrawingFailed, StepwiseError, WorkerDied
from pipeline.events import Event
from pipeline.executors.executor import Executor
from pipeline.run import Cancel

log = logging.getLogger("stepwise")

MOST_KILLS = 2
"""Times that one job may take down what draws it, a worker or a process' hold of its device; it is set aside
then."""


class Attempt:
    """Of a job that was claimed. Runs in its executor's thread, to its end."""

    def __init__(
        self,
        jobs: ActiveJobs,
        tracked: TrackedJob,
        executor: Executor,
        most_seconds: float,
        estimator: Estimator,
        metrics: Metrics,
    ) -> None:
        """
        Args:
            most_seconds: that a drawing may take (`Limits.draw`); housekeeping ends it then.
        """
        self._jobs, self._tracked, self._executor = jobs, tracked, executor
        self._most_seconds, self._estimator, self._metrics = most_seconds, estimator, metrics
        self._job = tracked.record.job

    def run(self, loaded: bool, elsewhere: bool) -> None:
        """Draws, and writes down and tells what became of it.

        Args:
            loaded: its model could begin without loading. elsewhere: it is drawn by a provider.
        """
        path = log_path(self._jobs.logs, self._job.id, self._tracked.record.attempt)
        with contextlib.ExitStack() as stack:
            writer = None
            try:
                writer = stack.enter_context(LogWriter(path))
                last = self._draw(writer, loaded, elsewhere)
            except StepwiseError as error:
                last = self._tracked.failed(str(error), error.code)
            except OSError as error:
                last = self._disk_failed(error)
            except Exception as error:
                log.exception("Job %s could not be drawn", self._job.short_id)
                why = f"The drawing failed ({type(error).__name__}); the server's log has the details."
                last = self._tracked.failed(f"{why} Try again.", DrawingFailed.code)
            if last is not None:
                self._conclude(last, writer)

    def _draw(self, writer: LogWriter, loaded: bool, elsewhere: bool) -> Event | None:
        """Return the attempt's last event, or None if it was not begun, and its job waits again.

        Raises:
            OSError: the disk doesn't take its events.
        """
        tracked, job = self._tracked, self._job
        self._metrics.begun(tracked.record, loaded or elsewhere)
        cancel = self._jobs.begin(tracked, self._executor)
        events = _Events(self, writer, loaded, cancel)
        try:
            last = self._executor.run(job, events.see, cancel)
        except WorkerDied as error:  # it ended before this job was begun: not the job's fault
            log.warning("Job %s waits again: %s", job.short_id, error)
            self._jobs.requeue(tracked, killed=False)
            return None
        if events.disk_error is not None:
            raise events.disk_error
        return last

    def _conclude(self, last: Event, writer: LogWriter | None) -> None:
        """Writes down what became of it, and tells it then."""
        jobs, tracked = self._jobs, self._tracked
        if jobs.cut:
            jobs.release(tracked)
            return  # it was requeued: the next server draws it
        lost = last.code == WorkerDied.code
        if lost and not tracked.stop_asked and not tracked.late:
            self._metrics.lost("worker")
            if tracked.record.kills + 1 < MOST_KILLS:
                self._draw_again(last)
                return
            words = f"It was set aside: what drew it was lost {MOST_KILLS} times. The last time: {last.error}"
            last = replace(last, error=words)
        if tracked.late:
            words = f"It took longer than {self._most_seconds:,.0f} s, the most that a drawing may take here."
            words += " Try fewer steps or a smaller size."
            last = replace(last, phase="failed", error=words, code="late")
        elif tracked.stop_asked and lost:
            last = replace(last, phase="stopped", error=None, code=None)
        shown = tracked.as_shown(last)
        try:
            if writer is not None:
                writer.append(shown)
        except OSError as error:
            shown = self._disk_failed(error)
        jobs.finish(tracked, shown)
        self._estimator.save()  # a killed process has no time for it

    def _draw_again(self, last: Event) -> None:
        """Requeues a job whose executor was lost: it waits for what takes its place, or for the restart of
        the server."""
        tracked = self._tracked
        log.warning("Job %s is drawn again: %s", self._job.short_id, last.error)
        words = "The process that drew this ended; it was drawn again from the beginning."
        if self._executor.capabilities().lost:
            words = "The GPU failed while this was drawn."
        tracked.lost_attempts = (words,)
        tracked.show(replace(tracked.latest, phase="queued", step=0, image=1, images=(), eta=None))
        self._jobs.requeue(tracked, killed=True)

    def _disk_failed(self, error: OSError) -> Event:
        full = DiskFull(f"The disk with {self._jobs.logs} can't be written to: {error.strerror or error}.")
        log.error("%s", full)
        return self._tracked.failed(str(full), full.code)


class _Events:
    """Takes an attempt's events, one at a time, in the threads that make them.

    disk_error: why they couldn't be written down, which ends the attempt.
    """

    def __init__(self, attempt: Attempt, writer: LogWriter, loaded: bool, cancel: Cancel) -> None:
        job = attempt._job
        self._tracked, self._writer, self._cancel = attempt._tracked, writer, cancel
        self._observer = attempt._estimator.observe(job, loaded)
        self._steps = attempt._metrics.steps(job.model)
        self.disk_error: OSError | None = None

    def see(self, event: Event) -> None:
        """Learns from an event, writes it down and shows it; the last one is `_conclude`'s to show."""
        if self.disk_error is not None:
            return
        self._observer.see(event)
        self._steps.see(event)
        if event.last:
            return
        try:
            # First: whoever sees a picture may ask for it at once.
            self._writer.append(self._tracked.as_shown(event))
        except OSError as error:
            self.disk_error = error
            self._cancel.set()
            return
        self._tracked.show(event)
