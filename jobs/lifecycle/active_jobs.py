"""The jobs that wait or run in this process, and every change of their state: written down in the store
first, then told to their readers. Which changes there are, states.py says.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import Context
from dataclasses import replace
from pathlib import Path

from jobs.lifecycle.recovery import ended_event, log_of
from jobs.lifecycle.subscription import Subscription
from jobs.lifecycle.tracked_job import TrackedJob
from jobs.states import ENDED
from jobs.store.models import Choice, Policy, QueueSnapshot, Record, Store
from jobs.telemetry.job_log import JobLog
from jobs.telemetry.metrics import Metrics
from pipeline.errors import ServerEnding, StepwiseError
from pipeline.event_stream import EventStream
from pipeline.events import Event
from pipeline.executors.executor import Executor
from pipeline.run import Cancel

log = logging.getLogger("stepwise")


class ActiveJobs:
    """Safe to use from any thread.

    store: where jobs are written down. logs: the folder of their events. changed: notified with each change
    that may let a job begin; changes: how many of those there were. closing: nothing more is begun. cut: what
    ran was requeued for the next server.
    """

    def __init__(
        self, store: Store, logs: Path, metrics: Metrics, job_log: JobLog, on_track: Callable[[str], None]
    ) -> None:
        """on_track: is told the model of each job that is new here, before the job can be claimed."""
        self.store, self.logs = store, logs
        self.changed = threading.Condition()
        self.changes = 0
        self.closing = self.cut = False
        self._metrics, self._job_log, self._on_track = metrics, job_log, on_track
        self._tracked: dict[str, TrackedJob] = {}
        self._changing = threading.Lock()
        self._unwritten: list[Callable[[], object]] = []  # ends that a full disk kept from being written down
        self._stops: deque[TrackedJob] = deque()  # stops that are still to be written down

    # Queries.

    def all(self) -> list[TrackedJob]:
        """Return the jobs that wait or run."""
        return list(self._tracked.values())

    def get(self, job: str) -> TrackedJob | None:
        """Return the job with this id, or None if it neither waits nor runs here."""
        return self._tracked.get(job)

    def running(self) -> list[TrackedJob]:
        """Return the jobs that are being drawn."""
        return [tracked for tracked in self.all() if tracked.attempt is not None]

    def of_model(self, model: str) -> list[TrackedJob]:
        """Return the jobs that wait for this model, or are drawn with it."""
        return [tracked for tracked in self.all() if tracked.model == model]

    def find(self, job: str) -> Subscription | None:
        """Return the job with this id, whatever has become of it, or None if no job has this id."""
        if (tracked := self.get(job)) is not None:
            return self.subscribe(tracked)
        with self._changing:  # it may be on its way into memory
            if (tracked := self.get(job)) is not None:
                return self.subscribe(tracked)
            record = self.store.get(job)
        return None if record is None else self._ended(record)

    def subscribe(self, tracked: TrackedJob) -> Subscription:
        """Return a subscription to a job that waits or runs."""
        # Its last reader leaves on an event loop, so what follows from that is left to housekeeping.
        return Subscription(
            tracked.stream, lambda: log_of(tracked.record, self.logs), tracked, left=self.notify
        )

    def _ended(self, record: Record) -> Subscription:
        """Return a subscription to a job that has ended, as its log has it."""
        return Subscription(EventStream(ended_event(record, self.logs)), lambda: log_of(record, self.logs))

    def notify(self) -> None:
        """Has everyone who waits for a change look anew at who may begin, and at the jobs' places."""
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    # Into the queue.

    def add(self, write: Callable[[Store], Record], context: Context | None = None) -> Subscription:
        """Writes a job down and tracks it. A job whose id is known already is that job, as far as it has
        come.

        Args:
            write: calls `Store.add`. context: as of TrackedJob.

        Raises:
            Busy, StoreError, DiskFull.
        """
        with self._changing:
            self._write_owed()
            record = write(self.store)
            # Another caller's may have begun and ended just now.
            if record.state in ENDED:
                return self._ended(record)
            return self.subscribe(self.track(record, context))

    def track(self, record: Record, context: Context | None = None) -> TrackedJob:
        """Makes a job that the store has one of those that wait or run here."""
        with self.changed:
            if record.job.id in self._tracked:
                return self._tracked[record.job.id]
            tracked = TrackedJob(record, self._stop, context)
            self._tracked[tracked.id] = tracked
            self.notify()
        self._on_track(tracked.model)
        return tracked

    # Attempts.

    def claim(self, line: str, policy: Policy, resident: Collection[str] = ()) -> TrackedJob | None:
        """Begins an attempt, as of `Store.claim`, but of no job that was asked to stop, whether or not that
        is written down yet.

        Raises:
            StoreError, DiskFull.
        """

        def among_those_here(waiting: Sequence[Record], snapshot: QueueSnapshot) -> Choice | None:
            return policy([record for record in waiting if self._is_wanted(record)], snapshot)

        with self._changing:
            self._write_owed()
            record = None if self.closing else self.store.claim(line, among_those_here, resident)
            if record is None:
                return None
            tracked = self._tracked[record.job.id]
            tracked.record, tracked.claimed = record, True
        self.notify()
        return tracked

    def _write_owed(self) -> None:
        """Writes down what a full disk has kept from it."""
        while self._unwritten:
            self._unwritten[0]()
            del self._unwritten[0]

    def _is_wanted(self, record: Record) -> bool:
        tracked = self.get(record.job.id)
        return tracked is not None and not tracked.stop_asked

    def begin(self, tracked: TrackedJob, executor: Executor) -> Cancel:
        """Notes that an attempt is being drawn, and returns what ends it."""
        cancel = Cancel()
        with self.changed:
            tracked.attempt, tracked.executor, tracked.begun_at = cancel, executor, time.monotonic()
            ended_already = tracked.stop_asked or self.cut
        if ended_already:
            cancel.set()
        return cancel

    def release(self, tracked: TrackedJob) -> None:
        """Notes that nothing draws the job now."""
        with self.changed:
            tracked.attempt = tracked.begun_at = tracked.executor = None
            self.changed.notify_all()

    def requeue(self, tracked: TrackedJob, killed: bool) -> None:
        """Puts an attempt's job back into its place, unless it was asked to stop meanwhile: it ends then.

        Args:
            killed: as of `Store.requeue`.
        """
        self.release(tracked)
        with self.changed:  # first: another may claim it at once
            tracked.claimed, tracked.waits_since = False, time.monotonic()
        self.store.requeue(tracked.id, tracked.record.attempt, killed)
        after = self.store.get(tracked.id)
        if after is not None and after.state in ENDED:
            self._forget(tracked, replace(tracked.latest, phase="stopped", eta=None))
        else:
            self.notify()

    def finish(self, tracked: TrackedJob, last: Event) -> None:
        """Writes down how an attempt's job has ended, and tells its readers."""
        job, attempt = tracked.id, tracked.record.attempt
        phase, error, code = last.phase, last.error, last.code

        def write() -> None:
            self.store.finish(job, attempt, phase, error, code)  # type: ignore[arg-type]

        try:
            write()
        except StepwiseError as failure:
            self._unwritten.append(write)
            last = tracked.failed(str(failure), failure.code)
        self._forget(tracked, last)

    # Ends of jobs that wait.

    def refuse(self, tracked: TrackedJob, words: str, code: str = "failed") -> None:
        """Fails a job that waits."""
        if self.store.refuse(tracked.id, words, code):
            last = replace(tracked.latest, phase="failed", error=words, code=code, eta=None)
            self._forget(tracked, last)

    def refuse_all(self, jobs: Collection[str], error: StepwiseError) -> None:
        """Fails those of these jobs that wait."""
        for tracked in self.all():
            if tracked.id in jobs:
                self.refuse(tracked, str(error), error.code)

    def _stop(self, tracked: TrackedJob) -> None:
        """Takes a request to stop, in any thread, an event loop's too: so it is housekeeping that writes it
        down. What has ended stays as it is."""
        with self.changed:
            if tracked.stop_asked or self.get(tracked.id) is not tracked:
                return
            tracked.stop_asked = True
            attempt = tracked.attempt
            self._stops.append(tracked)
            self.notify()
        self._metrics.stopped(running=attempt is not None)
        if attempt is not None:
            attempt.set()

    def write_stops(self) -> None:
        """Writes down which jobs were asked to stop, and ends those of them that wait."""
        while True:
            with self.changed:
                if not self._stops:
                    return
                tracked = self._stops.popleft()
            self._write_stop(tracked)

    def _write_stop(self, tracked: TrackedJob) -> None:
        """A full disk keeps no job from ending: that is written down later, before anything is begun."""
        job, last = tracked.id, replace(tracked.latest, phase="stopped", eta=None)
        try:
            after = self.store.stop(job)
        except Exception as error:
            foreseen = isinstance(error, StepwiseError)
            log.error("A stop can't be written down: %s", error, exc_info=None if foreseen else error)
            with self._changing:  # so that it isn't begun meanwhile
                self._unwritten.append(lambda: self.store.stop(job))
                if not tracked.claimed:
                    self._forget(tracked, last)
            return
        if after is None or after.state == "stopped":  # it waited, whatever it did when it was asked
            self._forget(tracked, last)

    def _forget(self, tracked: TrackedJob, last: Event) -> None:
        """Tracks a job no longer, and shows its readers its last event."""
        with self.changed:
            tracked.attempt = tracked.begun_at = tracked.executor = None
            if self._tracked.pop(tracked.id, None) is None:
                return  # another has ended it meanwhile
            self.notify()
        self.report_ended(tracked.record, last)
        tracked.stream.publish(last)

    def report_ended(self, record: Record, last: Event) -> None:
        """Counts and logs a job that has ended."""
        self._metrics.ended(record, last)
        self._job_log.write(record, last)

    # The end of the server.

    def stop_claiming(self) -> None:
        """Begins nothing more. Jobs that nobody can follow later are not kept: whoever waits for one is told
        so while there is a connection."""
        with self._changing, self.changed:  # no claim is half made
            self.closing = True
            self.changed.notify_all()
        for tracked in self.all():
            if tracked.lifetime == "attached" and tracked.attempt is None:
                with self._logged("That a job isn't drawn any more"):
                    error = ServerEnding("The server is ending, and doesn't draw this any more.")
                    self.refuse(tracked, str(error), error.code)

    def hand_over(self) -> bool:
        """Begins nothing more, and requeues what is being drawn for the next server. Return False where that
        was done already."""
        with self._changing, self.changed:
            if self.cut:
                return False
            self.closing = self.cut = True
            self.changed.notify_all()
        with self._logged("That jobs wait again"):
            self.write_stops()  # first: what was asked to stop isn't kept
            for record in self.store.running():  # all are this process' own, also those just claimed
                self.store.requeue(record.job.id, record.attempt)
        for tracked in self.running():
            if (attempt := tracked.attempt) is not None:
                attempt.set()
        return True

    @contextlib.contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        """The end goes on where the disk doesn't take what should be written down."""
        try:
            yield
        except StepwiseError as error:
            log.error("%s can't be written down: %s", what, error)
