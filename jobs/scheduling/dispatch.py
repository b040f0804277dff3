"""Gives out jobs: each executor has a thread, or as many as it draws at once, which claims the next job and
draws it, one after the other; while none waits, it loads what is to be made ready.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from jobs.eta.estimator import Estimator
from jobs.lifecycle.active_jobs import ActiveJobs
from jobs.lifecycle.attempt import Attempt
from jobs.lifecycle.tracked_job import TrackedJob
from jobs.limits import Limits
from jobs.scheduling.downloads import Downloads
from jobs.scheduling.fair_share import policy_for
from jobs.scheduling.preloads import Preloads
from jobs.store.models import Choice, Policy, QueueSnapshot, Record
from jobs.telemetry.metrics import Metrics
from jobs.workers.executors import lost_for_good
from pipeline.catalog.catalogue import Catalogue
from pipeline.devices.threads import start_thread
from pipeline.errors import DrawingFailed, StepwiseError
from pipeline.executors.executor import Capabilities, Executor

log = logging.getLogger("stepwise")

NOT_READY = 0.25
"""Seconds after which an executor that couldn't begin is asked again."""
RETRY = 1.0
"""Seconds until something that failed for the disk's sake, or unforeseen, is tried again."""

SOMETHING_WRONG = "Something went wrong in the server; its log has the details. Draw it again."


class Dispatch:
    """Draws the active jobs, by the limits' policy, until they are closing."""

    def __init__(
        self,
        jobs: ActiveJobs,
        executors: Mapping[str, Sequence[Executor]],
        catalogue: Catalogue,
        limits: Limits,
        estimator: Estimator,
        metrics: Metrics,
        downloads: Downloads,
        preloads: Preloads,
        line_of: Callable[[str], str],
    ) -> None:
        """
        Args:
            executors: what draws, by line. line_of: names the line of a model.
        """
        self._jobs, self._executors = jobs, executors
        self._catalogue, self._limits, self._estimator, self._metrics = catalogue, limits, estimator, metrics
        self._downloads, self._preloads = downloads, preloads
        self._broken = ""
        self._threads: list[threading.Thread] = []
        for line, several in executors.items():
            models = [model for model in preloads.models if line_of(model) == line]
            for executor in several:
                executor.on_change(jobs.notify)
                for number in range(executor.at_once):
                    loads = models if number == 0 else []
                    serve = _Serving(self, line, executor, loads)
                    self._threads.append(start_thread(f"queue {line}", serve.run))

    def not_ready(self) -> str:
        """Why nothing can be drawn now, in words; empty where something can, or is. A model that must be
        loaded first is no reason: its job would begin with that."""
        if self._broken:
            return self._broken
        reasons = [one.capabilities().reason for several in self._executors.values() for one in several]
        return reasons[0] if reasons and all(reasons) else ""

    def not_alive(self) -> str:
        """Why jobs won't be drawn until the server is restarted, in words; empty where they will."""
        for several in self._executors.values():
            if lost := lost_for_good(several):
                return lost
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        return f"a thread has ended that gives out jobs: {', '.join(dead)}" if dead else ""

    def join(self, seconds: float) -> None:
        """Once the jobs are closing, waits for these threads to have ended: so many seconds at most."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _policy(self, line: str) -> Policy:
        """Return who is next in this line of those whose model is here."""
        policy = policy_for(line, self._limits.running_each)

        def of_those_here(waiting: Sequence[Record], snapshot: QueueSnapshot) -> Choice | None:
            here = [record for record in waiting if not self._downloads.is_coming(record.job.model)]
            return policy(here, snapshot)

        return of_those_here


class _Serving:
    """One thread that serves an executor."""

    def __init__(self, dispatch: Dispatch, line: str, executor: Executor, models: Sequence[str]) -> None:
        """models: those that the executor is to make ready, in this order."""
        self._dispatch, self._line, self._executor = dispatch, line, executor
        self._models, self._to_load = models, list(models)
        self._restarts = 0

    def run(self) -> None:
        """Draws and loads until nothing more is begun."""
        jobs, dispatch = self._dispatch._jobs, self._dispatch
        policy = dispatch._policy(self._line)
        while True:
            with jobs.changed:
                if jobs.closing:
                    return
                seen = jobs.changes
                capabilities = self._executor.capabilities()
                if capabilities.reason:
                    jobs.changed.wait(NOT_READY)
                    continue
            try:
                tracked = jobs.claim(self._line, policy, capabilities.resident)
                dispatch._broken = ""
            except Exception as error:  # the disk, most likely: what waits goes on waiting
                if jobs.closing:
                    return
                foreseen = isinstance(error, StepwiseError)
                log.error("No job can be begun: %s", error, exc_info=None if foreseen else error)
                dispatch._broken = str(error) if foreseen else "no job can be begun; the log has the details"
                time.sleep(RETRY)
                continue
            if tracked is not None:
                self._draw(tracked)
            elif model := self._next_to_load(capabilities):
                dispatch._preloads.load(self._executor, model)
                self._to_load.remove(model)
                jobs.notify()
            else:
                with jobs.changed:
                    while not jobs.closing and jobs.changes == seen:
                        jobs.changed.wait()

    def _next_to_load(self, capabilities: Capabilities) -> str | None:
        """Return the next model to make ready, or None while it is fetched, and where there is none left. A
        process that has taken another's place begins with the first one again."""
        downloads, preloads = self._dispatch._downloads, self._dispatch._preloads
        if capabilities.restarts != self._restarts:
            self._restarts, self._to_load = capabilities.restarts, list(self._models)
            preloads.begin_again(self._models)
        while self._to_load and preloads.has_failed(self._to_load[0]):
            del self._to_load[0]
        if not self._to_load:
            return None
        downloads.ensure(self._to_load[0])
        return None if downloads.is_coming(self._to_load[0]) else self._to_load[0]

    def _draw(self, tracked: TrackedJob) -> None:
        """Makes one attempt, from its claim to its end. Never raises: no job may end the thread that gives
        out the next one."""
        jobs, dispatch, model = self._dispatch._jobs, self._dispatch, tracked.model
        try:
            loaded = model in self._executor.capabilities().resident
            elsewhere = dispatch._catalogue[model].backend != "local"
            attempt = Attempt(
                jobs, tracked, self._executor, dispatch._limits.draw, dispatch._estimator, dispatch._metrics
            )
            if tracked.context is None:
                attempt.run(loaded, elsewhere)
            else:
                tracked.context.copy().run(attempt.run, loaded, elsewhere)
            if model in self._executor.capabilities().resident:
                dispatch._preloads.arrived(model)  # whatever became of its preload
        except Exception:
            log.exception("Job %s: its end", tracked.record.job.short_id)
            jobs.release(tracked)
            jobs.finish(tracked, tracked.failed(SOMETHING_WRONG, DrawingFailed.code))
