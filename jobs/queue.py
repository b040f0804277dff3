"""The one queue: every job is written down here, drawn in a fair order, and followed by whoever has its id.
What a killed process leaves is taken up by the next one.

`Register` has the jobs and the changes of their state; `Dispatch` gives them out to the devices; `Watch` does
what goes by the clock.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.data_dir.folder import DataFolder
from jobs.eta.estimator import Estimator
from jobs.lifecycle.active_jobs import Register
from jobs.lifecycle.downloads import Downloads
from jobs.lifecycle.recovery import take_up
from jobs.lifecycle.subscription import Following
from jobs.limits import Rules
from jobs.scheduling.dispatch import Dispatch
from jobs.scheduling.housekeeping import Watch
from jobs.scheduling.rate_limit import RateLimit
from jobs.store.log_names import rename_old
from jobs.store.models import WITH_VISITOR, Kept, Owner, Record
from jobs.store.sqlite import SqliteStore
from jobs.telemetry.job_log import Journal
from jobs.telemetry.metrics import Metrics, Now
from jobs.workers.executors import Executor, lost_for_good
from pipeline.errors import Busy, ModelUnavailable, ServerEnding, StepwiseError
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
        rules: Rules,
    ) -> None:
        """Takes up what the folder's last server left, and begins to draw.

        Args:
            engine: knows the models. executors: who draws, by line (`Engine.line`).

        Raises:
            StoreError: the folder's database can't be used.
        """
        self.engine = engine
        self.folder = folder
        self.rules = rules
        self._executors = executors
        self._rate = RateLimit(rules.rate)
        self._estimator = Estimator(engine.catalogue, engine.device, folder.pace)
        lines = {spec.id: engine.line(spec.id) for spec in engine.catalogue}
        self.metrics = metrics = Metrics(lines)
        self._store = SqliteStore(folder.database)
        self._register = register = Register(
            self._store,
            folder.logs,
            metrics,
            Journal(rules.log_prompts),
            lambda job: self._downloads.want(job.model),
        )
        metrics.also(Now(lines, executors, register.all))
        self._downloads = Downloads(engine, register.of_model, register.note, register.refuse_all)
        held = self._downloads.holds
        rename_old(folder.logs)
        for record in take_up(
            self._store, folder.logs, engine, executors, register.account, lambda _: metrics.lost("server")
        ):
            register.following(register.enter(record)).leave()  # until its reader comes back
        self._watch = Watch(register, executors, rules, self._estimator, held)
        self._dispatch = Dispatch(
            register, executors, engine.catalogue, rules, self._estimator, metrics, held
        )

    def check(self, values: Mapping[str, Any]) -> Job:
        """As `Engine.check`; who is refused is counted."""
        with self.metrics.refusals():
            return self.engine.check(values)

    def start(self, job: Job, owner: Owner, kept: Kept = "call") -> Following:
        """Writes a job down and returns at once. A job whose id is known already is that job, as far as it
        has come.

        Raises:
            InvalidRequest, ModelUnavailable: as of `Engine.check`.
            Busy: no room, too many of this person's, too many a minute, or the server is ending or has to be
                restarted.
            StoreError, DiskFull.
        """
        with self.metrics.refusals():
            job = self.engine.checked(job)
            if (known := self.find(job.id)) is not None:
                return known
            if self._register.closing:
                self.metrics.refused("draining")
                raise ServerEnding
            line = self.engine.line(job.model)
            if line not in self._executors:
                raise ModelUnavailable(f"Nothing here draws with {self.engine.catalogue[job.model].name}.")
            if lost := lost_for_good(self._executors[line]):
                self.metrics.refused("device_lost")
                raise Busy(lost, 60)
            self._rate.check(owner.person)
            try:
                following = self._register.add(job, line, owner, kept, self.rules.room, self.rules.each)
            except Busy as busy:
                self._explain(busy, line, owner)
                raise
        if following.active is not None and line == WITH_VISITOR:
            self._dispatch.draw_with_visitor(following.active)
        elif following.active is not None:
            with contextlib.suppress(StepwiseError):  # the disk; the watch tries again
                self._watch.tell(line)  # before its first reader looks
        return following

    def _explain(self, busy: Busy, line: str, owner: Owner) -> None:
        """Counts a refusal, and says when to come back where the store couldn't."""
        there = [active for active in self._register.all() if active.begun is None]
        theirs = [active for active in there if active.record.owner.person == owner.person]
        too_many = len(theirs) >= self.rules.each
        self.metrics.refused("too_many" if too_many else "line_full")
        if busy.retry_after is None:
            busy.retry_after = self._watch.until_one_begins(theirs if too_many else there, line)

    def find(self, job: str) -> Following | None:
        """The job with this id, whatever has become of it; None: unknown."""
        return self._register.find(job)

    def of(self, owner: Owner) -> list[Record]:
        """Jobs of a logged-in user, else of this very session; the newest first, as many as are listed."""
        return self._store.of(owner)

    def not_ready(self) -> str:
        """Why nothing can be drawn now, in words; empty where something can, or is. A model that must be
        loaded first is no reason: its job would begin with that."""
        if self._register.closing:
            return "draining: the server is ending, and takes no new drawings"
        return self._dispatch.not_ready()

    def not_alive(self) -> str:
        """Why jobs aren't drawn any more although they should, in words; empty where they are."""
        if self._register.closing:
            return ""  # its threads end because they were told to
        return self._dispatch.not_alive() or self._watch.not_alive()

    @property
    def closing(self) -> bool:
        """Whether nothing more is accepted and begun."""
        return self._register.closing

    def running(self) -> int:
        """How many jobs are being drawn."""
        return len(self._register.running())

    def drain(self, grace: float, now: Callable[[], bool] = lambda: False) -> bool:
        """Accepts and begins nothing more, and waits for what runs to end: so many seconds at most, and not
        once `now` says so. Those who wait for a job that nobody could follow later are told that it ends.
        Whether anything that ran has ended."""
        register = self._register
        register.begin_no_more()
        until = time.monotonic() + grace
        with register.changed:
            ran = len(register.running())
            while register.running() and not now() and (left := until - time.monotonic()) > 0:
                register.changed.wait(min(left, LOOK))
            return len(register.running()) < ran

    def close(self, patience: float = 0.0) -> None:
        """Keeps what waits and what runs for the folder's next server, and lets go of the folder.

        Args:
            patience: seconds to wait for the threads that draw, load or download to come out of what they do;
                0 leaves them to themselves, and the engine to whoever uses it next.
        """
        if not self._register.cut_off():
            return
        self._downloads.close()
        self._watch.close()
        for several in self._executors.values():
            for executor in several:
                executor.close()
        if patience:
            self._end_threads(time.monotonic() + patience)
        self._estimator.save()
        self._store.close()
        self.folder.close()

    def _end_threads(self, until: float) -> None:
        self.engine.close(until - time.monotonic())
        self._dispatch.join(until - time.monotonic())
        for several in self._executors.values():
            for executor in several:
                executor.join(until - time.monotonic())
