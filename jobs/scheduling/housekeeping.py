"""What a queue does by the clock: tells those who wait their place and how long it will take, ends what
nobody follows or what takes too long, and deletes what is past its bounds. While nothing waits or runs, it
sleeps until the next job's pictures pass their age.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from jobs.eta.estimator import Estimator
from jobs.lifecycle.active_jobs import ActiveJobs
from jobs.lifecycle.ended_jobs import EndedJobs
from jobs.lifecycle.tracked_job import TrackedJob
from jobs.limits import Limits
from jobs.scheduling.fair_share import fair
from jobs.workers.executors import lost_for_good
from pipeline.devices.threads import start_thread
from pipeline.errors import StepwiseError
from pipeline.executors.executor import Executor

log = logging.getLogger("stepwise")

TICK = 1.0
"""Seconds between two looks while something waits or runs."""
PATIENCE = 30.0
"""Seconds for which a drawing that was told to end may go on, before its process is killed."""
STUCK = 60.0
"""Seconds that one look may take; the store itself gives up after 30."""
KEEPING = 60.0
"""Seconds between two looks at what is kept, at least."""
MANY = 1000
"""Changes after which it looks at what is kept, however soon: a job makes a few, and may take 100 KB."""
LONGEST = 3600.0
"""Seconds that it sleeps at most: the machine may sleep too, or its clock be set."""


class Housekeeping:
    """The clock of the active jobs."""

    def __init__(
        self,
        jobs: ActiveJobs,
        executors: Mapping[str, Sequence[Executor]],
        limits: Limits,
        estimator: Estimator,
        is_coming: Callable[[str], bool],
        loading: Callable[[Sequence[Executor]], Sequence[str]],
    ) -> None:
        """
        Args:
            executors: what draws, by line. is_coming: whether a model is being fetched. loading: names the
            models that these executors make ready now.
        """
        self._jobs, self._executors, self._limits = jobs, executors, limits
        self._estimator, self._is_coming, self._loading = estimator, is_coming, loading
        self._seen = -1
        self._since: float | None = None
        self._closed = False
        # When old jobs were last deleted, and are next; how many changes there were then.
        self._deleted = self._due = time.monotonic()
        self._changes = 0
        self._telling = threading.Lock()  # so that nobody is told what was true before what they know
        self._ended = EndedJobs(jobs.store, jobs.logs)
        self._delete_old()
        self._thread = start_thread("housekeeping", self._run)

    def tell(self, line: str) -> None:
        """Tells everyone in this line their place, and how long until their picture is there."""
        with self._telling:
            self._foretell(line)

    def not_alive(self) -> str:
        """Why nothing ends by the clock any more, in words; empty where it does."""
        if not self._thread.is_alive():
            return "the queue's clock has ended"
        if self._since is not None and time.monotonic() - self._since > STUCK:
            return f"the queue's clock has stood still for more than {STUCK:g} s"
        now, most = time.monotonic(), self._limits.draw + 2 * PATIENCE
        if any(one.begun_at is not None and now - one.begun_at > most for one in self._jobs.all()):
            return f"a drawing has gone on for more than {most:,.0f} s, and can't be ended"
        return ""

    def until_one_begins(self, waiting: Sequence[TrackedJob], line: str) -> float | None:
        """Seconds until one of these is drawn, so that its place is free; None while unknown."""
        known = []
        for tracked in waiting:
            eta = tracked.latest.eta
            took = self._estimator.seconds(tracked.record.job, tracked.model in self._resident(line))
            if tracked.record.line == line and eta is not None and took is not None:
                known.append(max(0.0, eta - took))
        for tracked in self._jobs.all():
            if tracked.record.line == line and tracked.begun_at is not None and not known:
                left = self._estimator.remaining(tracked.latest)
                known += [] if left is None else [left]
        return min(known, default=None)

    def close(self) -> None:
        with self._jobs.changed:
            self._closed = True
            self._jobs.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        jobs = self._jobs
        while True:
            with jobs.changed:
                rest = TICK if jobs.all() else min(LONGEST, max(0.0, self._due - time.monotonic()))
                jobs.changed.wait_for(lambda: self._closed or jobs.changes != self._seen, rest)
                if self._closed:
                    return
                if jobs.changes != self._seen:  # there may be more files than at the last look
                    many = jobs.changes - self._changes >= MANY
                    self._due = min(self._due, self._deleted + (0 if many else KEEPING))
                self._seen = jobs.changes
            self._since = time.monotonic()
            try:
                self._look()
            except StepwiseError as error:  # the disk
                log.error("The queue's places can't be told: %s", error)
            except Exception:
                log.exception("The queue's clock")
            finally:
                self._since = None

    def _look(self) -> None:
        self._jobs.write_stops()
        now = time.monotonic()
        for tracked in self._jobs.all():
            self._end_if_due(tracked, now)
        for line in self._executors:
            self.tell(line)
        if now >= self._due:
            self._delete_old()

    def _delete_old(self) -> None:
        self._deleted, self._changes = time.monotonic(), self._jobs.changes
        self._due = self._deleted + KEEPING  # also where it fails
        active = [tracked.id for tracked in self._jobs.all()]
        rest = self._ended.delete_old(self._limits.most_bytes, self._limits.most_seconds, active)
        self._due = self._deleted + max(KEEPING, min(LONGEST, rest))

    def _end_if_due(self, tracked: TrackedJob, now: float) -> None:
        limits = self._limits
        if self._abandoned(tracked, now):
            tracked.stop()
        if tracked.begun_at is None:
            if now - tracked.waits_since > limits.wait:
                self._jobs.refuse(
                    tracked, f"It waited for {limits.wait:,.0f} s without a turn, the most that it may here."
                )
            return
        attempt = tracked.attempt
        if attempt is not None and now - tracked.begun_at > limits.draw:
            tracked.late = True
            attempt.set()
            if now - tracked.begun_at > limits.draw + PATIENCE:
                self._kill(tracked)

    def _kill(self, tracked: TrackedJob) -> None:
        """Ends an attempt that doesn't listen, with the process that draws it. Where that can't be,
        `not_alive` says so."""
        if tracked.executor is not None:
            tracked.executor.kill()

    def _abandoned(self, tracked: TrackedJob, now: float) -> bool:
        """Whether nobody is left who would want it, as of `Lifetime`."""
        alone, patience = tracked.alone_since, self._limits.abandoned
        if alone is None or tracked.lifetime == "detached":
            return False
        if tracked.lifetime == "attached" and (tracked.begun_at is None or patience is None):
            return True
        begun = tracked.begun_at
        return patience is not None and begun is not None and now - max(alone, begun) > patience

    def _foretell(self, line: str) -> None:
        jobs, estimator, executors = self._jobs, self._estimator, self._executors[line]
        waiting = [one for one in jobs.store.waiting(line) if jobs.get(one.job.id) is not None]
        if not waiting:
            return
        if lost := lost_for_good(executors):
            for record in waiting:
                if (tracked := jobs.get(record.job.id)) is not None:
                    _tell_lost(tracked, lost)
            return
        resident = self._resident(line)
        snapshot = jobs.store.snapshot(waiting, resident)
        known_to_wait = {one.job.id for one in waiting}  # one may be begun between the two questions
        begun = [one.job.id for one in jobs.store.running() if one.line == line]
        begun = [job for job in begun if job not in known_to_wait]
        running = [tracked for job in begun if (tracked := jobs.get(job)) is not None]
        loading = self._loading(executors)
        # When each executor is free, in seconds from now; None from where it isn't known on.
        at_once = sum(executor.at_once for executor in executors)
        free: list[float | None] = [0.0] * max(0, at_once - len(running) - len(loading))
        free += [estimator.remaining(one.latest) for one in running]
        free += [None for _ in loading]
        loaded = set(resident)
        for place, record in enumerate(fair(waiting, snapshot)):
            waits = jobs.get(record.job.id)
            known = [seconds for seconds in free if seconds is not None]
            took = estimator.seconds(record.job, record.job.model in loaded)
            loaded.add(record.job.model)
            eta = None
            if took is not None and len(known) == len(free) and known:
                first = min(known)
                free.remove(first)
                eta = first + took
                free.append(eta)
            else:
                free = [None]
            if waits is not None and not self._is_coming(record.job.model):
                with jobs.changed:  # it may be begun now
                    if waits.begun_at is None and not waits.claimed:
                        _tell(waits, place + len(running) + len(loading), eta, next(iter(loading), ""))

    def _resident(self, line: str) -> set[str]:
        return {model for one in self._executors[line] for model in one.capabilities().resident}


def _tell_lost(tracked: TrackedJob, words: str) -> None:
    """Says why it waits, for as long as this server lasts."""
    latest, words = tracked.latest, f"{words} This waits for that."
    if latest.phase == "queued" and words not in latest.warnings:
        tracked.update(warnings=(*latest.warnings, words), eta=None, preload="")


def _tell(tracked: TrackedJob, position: int, eta: float | None, preload: str) -> None:
    """Shows a job's readers its place, if that is news. preload: names the model that is loaded before it."""
    latest = tracked.latest
    told = None if latest.eta is None else round(latest.eta)
    if (
        latest.phase == "queued"
        and (latest.position, latest.preload) == (position, preload)
        and told == (None if eta is None else round(eta))
    ):
        return
    if latest.phase in ("queued", "downloading"):
        tracked.update(phase="queued", position=position, eta=eta, preload=preload)
