"""What a queue does by the clock: tells those who wait their place and how long it will take, ends what
nobody follows or what takes too long, and deletes what is past its bounds. It sleeps while nothing waits or
runs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.following import Active
from jobs.policy import fair
from pipeline.errors import StepwiseError

if TYPE_CHECKING:
    from jobs.queue import Queue

log = logging.getLogger("stepwise")

TICK = 1.0
"""Seconds between two looks while something waits or runs."""
PATIENCE = 30.0
"""Seconds for which a drawing that was told to end may go on, before its process is killed."""
STUCK = 60.0
"""Seconds that one look may take; the store itself gives up after 30."""
KEEPING = 60.0
"""Seconds between two looks at what is kept, at least."""


class Watch:
    """A queue's clock. changes: a number that grows with everything that may let a job begin."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.changes = 0
        self._seen = -1
        self._since: float | None = None
        self._closed = False
        self._kept = time.monotonic()
        self._telling = threading.Lock()  # so that nobody is told what was true before what they know
        self._thread = threading.Thread(target=self._run, name="queue watch", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Something changed: who may begin, and everyone's place, are looked at anew."""
        changed = self._queue._changed
        with changed:
            self.changes += 1
            changed.notify_all()

    def tell(self, line: str) -> None:
        """Tells everyone in this line their place, and how long until their picture is there."""
        with self._telling:
            self._foretell(line)

    def not_alive(self) -> str:
        """Why nobody's place is told and nothing ended by the clock any more; empty where it is."""
        if not self._thread.is_alive():
            return "the queue's clock has ended"
        if self._since is not None and time.monotonic() - self._since > STUCK:
            return f"the queue's clock has stood still for more than {STUCK:g} s"
        return ""

    def until_one_begins(self, waiting: Sequence[Active], line: str) -> float | None:
        """Seconds until one of these is drawn, so that its place is free; None while unknown."""
        queue = self._queue
        known = []
        for active in waiting:
            eta = active.box.latest.eta
            took = queue._pace.seconds(active.record.job, active.record.job.model in queue._resident(line))
            if active.record.line == line and eta is not None and took is not None:
                known.append(max(0.0, eta - took))
        for active in list(queue._active.values()):
            if active.record.line == line and active.begun is not None and not known:
                left = queue._pace.remaining(active.box.latest)
                known += [] if left is None else [left]
        return min(known, default=None)

    def close(self) -> None:
        with self._queue._changed:
            self._closed = True
            self._queue._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        queue = self._queue
        while True:
            with queue._changed:
                queue._changed.wait_for(
                    lambda: self._closed or self.changes != self._seen, TICK if queue._active else None
                )
                if self._closed:
                    return
                self._seen = self.changes
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
        now = time.monotonic()
        for active in list(self._queue._active.values()):
            self._end_if_due(active, now)
        for line in self._queue._executors:
            self.tell(line)
        if now - self._kept > KEEPING:
            self._kept = now
            self._queue._keep()

    def _end_if_due(self, active: Active, now: float) -> None:
        rules = self._queue.rules
        if self._abandoned(active, now):
            active.box.stop()
        if active.begun is None:
            if time.time() - active.record.created > rules.wait:
                self._queue._refuse(
                    active, f"It waited for {rules.wait:,.0f} s without a turn, the most that it may here."
                )
            return
        drawing = active.drawing
        if drawing is not None and now - active.begun > rules.draw:
            active.late = True
            drawing.stop()
            if now - active.begun > rules.draw + PATIENCE:
                self._queue._kill(active)  # where that can't be, `Queue.not_alive` says so

    def _abandoned(self, active: Active, now: float) -> bool:
        """Whether nobody is left who would want it, as of record.Kept."""
        alone, patience = active.alone, self._queue.rules.abandoned
        if alone is None or active.kept == "always":
            return False
        if active.kept == "call" and (active.begun is None or patience is None):
            return True
        return patience is not None and active.begun is not None and now - max(alone, active.begun) > patience

    def _foretell(self, line: str) -> None:
        queue = self._queue
        executors = queue._executors[line]
        waiting = [one for one in queue._store.waiting(line) if one.job.id in queue._active]
        if not waiting:
            return
        resident = queue._resident(line)
        sight = queue._store.sight(line, resident)
        begun = [one.job.id for one in queue._store.running() if one.line == line]
        running = [active for job in begun if (active := queue._active.get(job)) is not None]
        # When each executor is free, in seconds from now; None from where it isn't known on.
        free: list[float | None] = [0.0] * max(0, len(executors) - len(running))
        free += [queue._pace.remaining(one.box.latest) for one in running]
        loaded = set(resident)
        for place, record in enumerate(fair(waiting, sight)):
            active = queue._active.get(record.job.id)
            known = [seconds for seconds in free if seconds is not None]
            took = queue._pace.seconds(record.job, record.job.model in loaded)
            loaded.add(record.job.model)
            eta = None
            if took is not None and len(known) == len(free) and known:
                first = min(known)
                free.remove(first)
                eta = first + took
                free.append(eta)
            else:
                free = [None]
            if active is not None and not queue._downloads.holds(record.job.model):
                with queue._changed:  # it may be begun now
                    if active.begun is None:
                        _tell(active, place + len(running), eta)


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
