"""Gives out jobs: a thread for each device claims the next one and draws it, one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from jobs.eta.estimator import Estimator
from jobs.lifecycle.active_jobs import Register
from jobs.lifecycle.attempt import Attempt
from jobs.lifecycle.subscription import Active
from jobs.limits import Rules
from jobs.store.models import WITH_VISITOR, Choice, Record, Sight
from jobs.telemetry.metrics import Metrics
from jobs.workers.executors import Executor, lost_for_good
from pipeline.catalog.catalogue import Catalogue
from pipeline.devices.threads import start_thread
from pipeline.errors import Busy, DrawingFailed, StepwiseError

log = logging.getLogger("stepwise")

NOT_READY = 0.25
"""Seconds after which an executor that wasn't ready is asked again."""
RETRY = 1.0
"""Seconds until something that failed for the disk's sake, or unforeseen, is tried again."""

SOMETHING_WRONG = "Something went wrong in the server; its log has the details. Draw it again."


class Dispatch:
    """Draws what the register has, by the rules' policy, until the register is closing."""

    def __init__(
        self,
        register: Register,
        executors: Mapping[str, Sequence[Executor]],
        catalogue: Catalogue,
        rules: Rules,
        estimator: Estimator,
        metrics: Metrics,
        held: Callable[[str], bool],
    ) -> None:
        """
        Args:
            executors: who draws, by line. held: whether a model's jobs have to wait for it still.
        """
        self._register, self._executors = register, executors
        self._catalogue, self._rules, self._estimator, self._metrics = catalogue, rules, estimator, metrics
        self._held = held
        self._broken = ""
        self._threads = [
            start_thread(f"queue {line}", self._serve, line, executor)
            for line, several in executors.items()
            if line != WITH_VISITOR
            for executor in several
        ]

    def draw_with_visitor(self, active: Active) -> None:
        """Draws this one now, in a thread with the caller's context: there the platform that lends a GPU
        finds who asked for the picture."""
        try:
            start_thread(f"queue {active.record.job.short_id}", self._with_visitor, active, in_context=True)
        except Busy as error:
            self._register.give_up(active, str(error), error.code)

    def not_ready(self) -> str:
        """Why nothing can be drawn now, in words; empty where something can, or is. A model that must be
        loaded first is no reason: its job would begin with that."""
        if self._broken:
            return self._broken
        reasons = [executor.reason for line in self._executors.values() for executor in line]
        return reasons[0] if reasons and all(reasons) else ""

    def not_alive(self) -> str:
        """Why jobs won't be drawn until the server is restarted, in words; empty where they will."""
        for several in self._executors.values():
            if lost := lost_for_good(several):
                return lost
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        return f"a thread has ended that gives out jobs: {', '.join(dead)}" if dead else ""

    def join(self, seconds: float) -> None:
        """Once the register is closing, waits for these threads to have ended: so many seconds at most."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self, line: str, executor: Executor) -> None:
        """One device's thread."""
        register = self._register
        while True:
            with register.changed:
                if register.closing:
                    return
                seen = register.changes
                if not executor.ready:
                    register.changed.wait(NOT_READY)
                    continue
            try:
                active = register.claim(line, self._policy, executor.resident())
                self._broken = ""
            except Exception as error:  # the disk, most likely: what waits goes on waiting
                if register.closing:
                    return
                foreseen = isinstance(error, StepwiseError)
                log.error("No job can be begun: %s", error, exc_info=None if foreseen else error)
                self._broken = str(error) if foreseen else "no job can be begun; the log has the details"
                time.sleep(RETRY)
                continue
            if active is not None:
                self._draw(active, executor)
                continue
            with register.changed:
                while not register.closing and register.changes == seen:
                    register.changed.wait()

    def _policy(self, waiting: Sequence[Record], sight: Sight) -> Choice | None:
        here = [record for record in waiting if not self._held(record.job.model)]
        return self._rules.policy(here, sight)

    def _with_visitor(self, active: Active) -> None:
        """Draws this one to its end: an attempt that is lost is followed by another here, for nobody else
        takes jobs of this line."""
        job, register = active.record.job.id, self._register

        def this_one(waiting: Sequence[Record], _: Sight) -> Choice | None:
            return Choice(job) if any(record.job.id == job for record in waiting) else None

        try:
            while not register.closing:
                claimed = register.claim(WITH_VISITOR, this_one)
                if claimed is None:
                    return  # it has ended, is being stopped, or another call with its id draws it
                self._draw(claimed, self._executors[WITH_VISITOR][0])
            register.give_up(active, "The server is ending. Draw it again in a minute.", Busy.code)
        except StepwiseError as error:
            register.give_up(active, str(error), error.code)
        except Exception:
            log.exception("Job %s can't be begun", active.record.job.short_id)
            register.give_up(active, SOMETHING_WRONG, DrawingFailed.code)

    def _draw(self, active: Active, executor: Executor) -> None:
        """One attempt, from its claim to its end. Never raises: no job may end the thread that gives out the
        next one."""
        model = active.record.job.model
        try:
            loaded = model in executor.resident()
            elsewhere = self._catalogue[model].backend != "local"
            attempt = Attempt(
                self._register, active, executor, self._rules.draw, self._estimator, self._metrics
            )
            attempt.run(loaded, elsewhere)
        except Exception:
            log.exception("Job %s: its end", active.record.job.short_id)
            self._register.free(active)
            self._register.end(active, active.failed(SOMETHING_WRONG, DrawingFailed.code))
