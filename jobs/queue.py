"""The one queue: every job is written down here, drawn in a fair order, and followed by whoever has its id.
What a killed process leaves is recovered by the next one.

`ActiveJobs` has the jobs and the changes of their state; `Dispatch` gives them to the executors;
`Housekeeping` does what goes by the clock.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.data_dir.folder import DataFolder
from jobs.eta.estimator import Estimator
from jobs.lifecycle.active_jobs import ActiveJobs
from jobs.lifecycle.recovery import recover
from jobs.lifecycle.subscription import Subscription
from jobs.limits import Limits
from jobs.scheduling.dispatch import Dispatch
from jobs.scheduling.downloads import Downloads
from jobs.scheduling.housekeeping import Housekeeping
from jobs.scheduling.preloads import Preloads
from jobs.scheduling.rate_limit import RateLimit
from jobs.store.log_names import rename_old
from jobs.store.models import WITH_VISITOR, Lifetime, Owner, Record
from jobs.store.sqlite import SqliteStore
from jobs.telemetry.job_log import JobLog
from jobs.telemetry.metrics import Metrics, Now
from jobs.workers.executors import lost_for_good
from pipeline.errors import Busy, ModelUnavailable, ServerEnding, StepwiseError
from pipeline.executors.executor import Executor
from pipeline.request import Job

if TYPE_CHECKING:
    from pipeline.engine import Engine


LOOK = 0.1
"""Seconds between two looks, while it drains, at whether the end is asked for now."""


class Queue:
    """Jobs from their start to their end. Safe to use from any thread.

    folder: where it keeps them.
    """

    def __init__(
        self,
        engine: Engine,
        folder: DataFolder,
        executors: Mapping[str, Sequence[Executor]],
        limits: Limits,
        preload: Sequence[str] = (),
    ) -> None:
        """Recovers what the folder's last server left, and begins to draw.

        Args:
            engine: knows the models. executors: what draws, by line (`Engine.line`). preload: ids of the
                models to make ready, in this order.

        Raises:
            StoreError: the folder's database can't be used.
        """
        self.engine = engine
        self.folder = folder
        self.limits = limits
        self._executors = executors
        self._rate = RateLimit(limits.rate)
        self._estimator = Estimator(engine.catalogue, engine.device, folder.pace)
        lines = {spec.id: engine.line(spec.id) for spec in engine.catalogue}
        self.metrics = metrics = Metrics(lines)
        self._store = SqliteStore(folder.database)
        self._jobs = jobs = ActiveJobs(
            self._store,
            folder.logs,
            metrics,
            JobLog(limits.log_prompts),
            lambda model: self._downloads.ensure(model),
        )
        drawn = lambda: ((one.record, one.begun_at is not None) for one in jobs.all())  # noqa: E731
        metrics.add_collector(Now(lines, executors, drawn))
        self._preloads = Preloads(preload, lambda model: engine.reason(engine.catalogue[model]))
        self._downloads = Downloads(engine, self._preloads, jobs.of_model, jobs.notify, jobs.refuse_all)
        rename_old(folder.logs)
        for record in recover(
            self._store,
            folder.logs,
            engine,
            executors,
            jobs.report_ended,
            lambda _: metrics.lost("server"),
        ):
            jobs.subscribe(jobs.track(record)).leave()  # until its reader comes back
        self._housekeeping = Housekeeping(
            jobs, executors, limits, self._estimator, self._downloads.is_coming, self._loading
        )
        self._dispatch = Dispatch(
            jobs,
            executors,
            engine.catalogue,
            limits,
            self._estimator,
            metrics,
            self._downloads,
            self._preloads,
            engine.line,
        )

    def models(self) -> list[dict[str, Any]]:
        """Every model, as of `Engine.models`, with how far it is that is being made ready: the `/models`
        endpoint."""
        coming = self._preloads.coming()
        return [model | {"coming": coming.get(model["id"])} for model in self.engine.models()]

    def check(self, values: Mapping[str, Any]) -> Job:
        """As `Engine.check`; who is refused is counted."""
        with self.metrics.refusals():
            return self.engine.check(values)

    def start(self, job: Job, owner: Owner, lifetime: Lifetime = "attached") -> Subscription:
        """Writes a job down and returns at once. A job whose id is known already is that job, as far as it
        has come.

        Args:
            job: as of `check`, which is the one place where it is validated.

        Raises:
            ModelUnavailable: nothing here draws with its model.
            Busy: no room, too many of this person's, too many a minute, or the server is ending or has to be
                restarted.
            StoreError, DiskFull.
        """
        with self.metrics.refusals():
            if (known := self.find(job.id)) is not None:
                return known
            if self._jobs.closing:
                self.metrics.refused("draining")
                raise ServerEnding
            line = self.engine.line(job.model)
            if line not in self._executors:
                raise ModelUnavailable(f"Nothing here draws with {self.engine.catalogue[job.model].name}.")
            if lost := lost_for_good(self._executors[line]):
                self.metrics.refused("device_lost")
                raise Busy(lost, 60)
            self._rate.hit(owner.person)
            room, each = self.limits.room, self.limits.each
            # There the platform that lends a GPU finds who asked for the picture.
            context = contextvars.copy_context() if line == WITH_VISITOR else None
            try:
                subscription = self._jobs.add(
                    lambda store: store.add(job, line, owner, lifetime, room, each), context
                )
            except Busy as busy:
                self._explain(busy, line, owner)
                raise
        if subscription.tracked is not None:
            with contextlib.suppress(StepwiseError):  # the disk; housekeeping tries again
                self._housekeeping.tell(line)  # before its first reader looks
        return subscription

    def _explain(self, busy: Busy, line: str, owner: Owner) -> None:
        """Counts a refusal, and says when to come back where the store couldn't."""
        there = [tracked for tracked in self._jobs.all() if tracked.begun_at is None]
        theirs = [tracked for tracked in there if tracked.record.owner.person == owner.person]
        too_many = len(theirs) >= self.limits.each
        self.metrics.refused("too_many" if too_many else "line_full")
        if busy.retry_after is None:
            busy.retry_after = self._housekeeping.until_one_begins(theirs if too_many else there, line)

    def find(self, job: str) -> Subscription | None:
        """Return the job with this id, whatever has become of it, or None if no job has this id."""
        return self._jobs.find(job)

    def listed_for(self, owner: Owner) -> list[Record]:
        """Return the jobs of a logged-in user, else of this very session; the newest first, as many as are
        listed."""
        return self._store.listed_for(owner)

    def not_ready(self) -> str:
        """Why nothing can be drawn now, in words; empty where something can, or is. A model that must be
        loaded first is no reason: its job would begin with that."""
        if self._jobs.closing:
            return "draining: the server is ending, and takes no new drawings"
        return self._dispatch.not_ready()

    def not_alive(self) -> str:
        """Why jobs aren't drawn any more although they should, in words; empty where they are."""
        if self._jobs.closing:
            return ""  # its threads end because they were told to
        return self._dispatch.not_alive() or self._housekeeping.not_alive()

    @property
    def closing(self) -> bool:
        """Whether nothing more is accepted and begun."""
        return self._jobs.closing

    def running(self) -> int:
        """How many jobs are being drawn."""
        return len(self._jobs.running())

    def drain(self, grace: float, now: Callable[[], bool] = lambda: False) -> bool:
        """Accepts and begins nothing more, and waits for what runs to end: so many seconds at most, and not
        once `now` says so. Those who wait for a job that nobody could follow later are told that it ends.
        Whether anything that ran has ended."""
        jobs = self._jobs
        jobs.stop_claiming()
        until = time.monotonic() + grace
        with jobs.changed:
            ran = len(jobs.running())
            while jobs.running() and not now() and (left := until - time.monotonic()) > 0:
                jobs.changed.wait(min(left, LOOK))
            return len(jobs.running()) < ran

    def close(self, patience: float = 0.0) -> None:
        """Keeps what waits and what runs for the folder's next server, and lets go of the folder.

        Args:
            patience: seconds to wait for the threads that draw, load or download to come out of what they do;
                0 leaves them to themselves, and the engine to whoever uses it next.
        """
        if not self._jobs.hand_over():
            return
        self._preloads.close()
        self._downloads.close()
        self._housekeeping.close()
        for several in self._executors.values():
            for executor in several:
                executor.close()
        if patience:
            self._end_threads(time.monotonic() + patience)
        self._estimator.save()
        self._store.close()
        self.folder.close()

    def _loading(self, executors: Sequence[Executor]) -> list[str]:
        """Return the names of the models that these executors make ready now."""
        return [self.engine.catalogue[model].name for model in self._preloads.loading(executors)]

    def _end_threads(self, until: float) -> None:
        self.engine.close(until - time.monotonic())
        self._dispatch.join(until - time.monotonic())
        for several in self._executors.values():
            for executor in several:
                executor.join(until - time.monotonic())
