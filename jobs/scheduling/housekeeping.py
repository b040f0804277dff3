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
from jobs.lifecycle.active_jobs import Register
from jobs.lifecycle.subscription import Active
from jobs.limits import Rules
from jobs.scheduling.fair_share import fair
from jobs.workers.executors import Executor, lost_for_good
from pipeline.devices.threads import start_thread
from pipeline.errors import StepwiseError

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


class Watch:
    """A register's clock."""

    def __init__(
        self,
        register: Register,
        executors: Mapping[str, Sequence[Executor]],
        rules: Rules,
        estimator: Estimator,
        held: Callable[[str], bool],
    ) -> None:
        """
        Args:
            executors: who draws, by line. held: whether a model's jobs have to wait for it still.
        """
        self._register, self._executors, self._rules = register, executors, rules
        self._estimator, self._held = estimator, held
        self._seen = -1
        self._since: float | None = None
        self._closed = False
        # When kept was looked at last, and is next; how many changes there were then.
        self._kept = self._due = time.monotonic()
        self._changes = 0
        self._telling = threading.Lock()  # so that nobody is told what was true before what they know
        self._keep()
        self._thread = start_thread("queue watch", self._run)

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
        now, most = time.monotonic(), self._rules.draw + 2 * PATIENCE
        if any(one.begun is not None and now - one.begun > most for one in self._register.all()):
            return f"a drawing has gone on for more than {most:,.0f} s, and can't be ended"
        return ""

    def until_one_begins(self, waiting: Sequence[Active], line: str) -> float | None:
        """Seconds until one of these is drawn, so that its place is free; None while unknown."""
        known = []
        for active in waiting:
            eta = active.box.latest.eta
            took = self._estimator.seconds(active.record.job, active.record.job.model in self._resident(line))
            if active.record.line == line and eta is not None and took is not None:
                known.append(max(0.0, eta - took))
        for active in self._register.all():
            if active.record.line == line and active.begun is not None and not known:
                left = self._estimator.remaining(active.box.latest)
                known += [] if left is None else [left]
        return min(known, default=None)

    def close(self) -> None:
        with self._register.changed:
            self._closed = True
            self._register.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        register = self._register
        while True:
            with register.changed:
                rest = TICK if register.all() else min(LONGEST, max(0.0, self._due - time.monotonic()))
                register.changed.wait_for(lambda: self._closed or register.changes != self._seen, rest)
                if self._closed:
                    return
                if register.changes != self._seen:  # there may be more files than at the last look
                    many = register.changes - self._changes >= MANY
                    self._due = min(self._due, self._kept + (0 if many else KEEPING))
                self._seen = register.changes
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
        self._register.write_stops()
        now = time.monotonic()
        for active in self._register.all():
            self._end_if_due(active, now)
        for line in self._executors:
            self.tell(line)
        if now >= self._due:
            self._keep()

    def _keep(self) -> None:
        self._kept, self._changes = time.monotonic(), self._register.changes
        self._due = self._kept + KEEPING  # also where it fails
        rest = self._register.keep(self._rules.most_bytes, self._rules.most_seconds)
        self._due = self._kept + max(KEEPING, min(LONGEST, rest))

    def _end_if_due(self, active: Active, now: float) -> None:
        rules = self._rules
        if self._abandoned(active, now):
            active.box.stop()
        if active.begun is None:
            if now - active.waits > rules.wait:
                self._register.refuse(
                    active, f"It waited for {rules.wait:,.0f} s without a turn, the most that it may here."
                )
            return
        drawing = active.drawing
        if drawing is not None and now - active.begun > rules.draw:
            active.late = True
            drawing.stop()
            if now - active.begun > rules.draw + PATIENCE:
                self._kill(active)

    def _kill(self, active: Active) -> None:
        """Ends an attempt that doesn't listen, with the process that draws it. Where that can't be,
        `not_alive` says so."""
        if active.executor is not None:
            active.executor.kill()

    def _abandoned(self, active: Active, now: float) -> bool:
        """Whether nobody is left who would want it, as of record.Kept."""
        alone, patience = active.alone, self._rules.abandoned
        if alone is None or active.kept == "always":
            return False
        if active.kept == "call" and (active.begun is None or patience is None):
            return True
        return patience is not None and active.begun is not None and now - max(alone, active.begun) > patience

    def _foretell(self, line: str) -> None:
        register, estimator, executors = self._register, self._estimator, self._executors[line]
        waiting = [one for one in register.store.waiting(line) if register.get(one.job.id) is not None]
        if not waiting:
            return
        if lost := lost_for_good(executors):
            for record in waiting:
                if (active := register.get(record.job.id)) is not None:
                    _tell_lost(active, lost)
            return
        resident = self._resident(line)
        sight = register.store.sight(waiting, resident)
        begun = [one.job.id for one in register.store.running() if one.line == line]
        running = [active for job in begun if (active := register.get(job)) is not None]
        # When each executor is free, in seconds from now; None from where it isn't known on.
        free: list[float | None] = [0.0] * max(0, len(executors) - len(running))
        free += [estimator.remaining(one.box.latest) for one in running]
        loaded = set(resident)
        for place, record in enumerate(fair(waiting, sight)):
            active = register.get(record.job.id)
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
            if active is not None and not self._held(record.job.model):
                with register.changed:  # it may be begun now
                    if active.begun is None:
                        _tell(active, place + len(running), eta)

    def _resident(self, line: str) -> set[str]:
        return {model for executor in self._executors[line] for model in executor.resident()}


def _tell_lost(active: Active, words: str) -> None:
    """Says why it waits, for as long as this server lasts."""
    latest, words = active.box.latest, f"{words} This waits for that."
    if latest.phase == "queued" and words not in latest.warnings:
        active.box.update(warnings=(*latest.warnings, words), eta=None, preload="")


def _tell(active: Active, position: int, eta: float | None) -> None:
    latest = active.box.latest
    told = None if latest.eta is None else round(latest.eta)
    if (
        latest.phase == "queued"
        and latest.position == position
        and told == (None if eta is None else round(eta))
    ):
        return
    if latest.phase in ("queued", "downloading"):
        active.box.update(phase="queued", position=position, eta=eta, preload="")
