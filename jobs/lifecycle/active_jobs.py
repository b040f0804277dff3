"""The jobs that wait or run in this process, and every change of their state: written down in the store
first, then told to their readers.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.lifecycle.recovery import ended_event, log_of
from jobs.lifecycle.subscription import Active, Following
from jobs.store.log_names import name_of
from jobs.store.models import ENDED, Choice, Kept, Owner, Policy, Record, Sight, Store
from jobs.store.retention import keep
from jobs.telemetry.job_log import Journal
from jobs.telemetry.metrics import Metrics
from jobs.workers.executors import Executor
from pipeline.drawing import Drawing
from pipeline.errors import ServerEnding, StepwiseError
from pipeline.events import Event
from pipeline.request import Job

log = logging.getLogger("stepwise")


class Register:
    """Safe to use from any thread.

    store: where jobs are written down. logs: the folder of their events. changed: notified with each change
    that may let a job begin; changes: how many of those there were. closing: nothing more is begun. cut: what
    ran was put back for the next server.
    """

    def __init__(
        self, store: Store, logs: Path, metrics: Metrics, journal: Journal, entered: Callable[[Job], None]
    ) -> None:
        """entered: told of each job that is new here, before it can be claimed."""
        self.store, self.logs = store, logs
        self.changed = threading.Condition()
        self.changes = 0
        self.closing = self.cut = False
        self._metrics, self._journal, self._entered = metrics, journal, entered
        self._active: dict[str, Active] = {}
        self._taking = threading.Lock()  # while a job is written down and entered, so that nobody sees half
        self._owed: list[Callable[[], object]] = []  # ends that a full disk kept from being written down
        self._stops: deque[Active] = deque()  # who was asked to stop, where that is still to be written down

    # Who is there.

    def all(self) -> list[Active]:
        """Who waits or runs."""
        return list(self._active.values())

    def get(self, job: str) -> Active | None:
        """None: it neither waits nor runs here."""
        return self._active.get(job)

    def running(self) -> list[Active]:
        """Those that are being drawn."""
        return [active for active in self.all() if active.drawing is not None]

    def of_model(self, model: str) -> list[Drawing]:
        """What the readers of those see that wait for this model, or are drawn with it."""
        return [active.box for active in self.all() if active.record.job.model == model]

    def note(self) -> None:
        """Something changed: who may begin, and everyone's place, are looked at anew."""
        with self.changed:
            self.changes += 1
            self.changed.notify_all()

    # For clients.

    def add(self, job: Job, line: str, owner: Owner, kept: Kept, room: int, each: int) -> Following:
        """Writes a job down, as of `Store.add`; one whose id is known already is that job, as far as it has
        come.

        Raises:
            Busy, StoreError, DiskFull.
        """
        with self._taking:
            self._pay()
            record = self.store.add(job, line, owner, kept, room, each)
            # Another caller's may have begun and ended just now.
            return self._ended(record) if record.state in ENDED else self.following(self.enter(record))

    def find(self, job: str) -> Following | None:
        """The job with this id, whatever has become of it; None: unknown."""
        if (active := self.get(job)) is not None:
            return self.following(active)
        with self._taking:  # it may be being entered
            if (active := self.get(job)) is not None:
                return self.following(active)
            record = self.store.get(job)
        return None if record is None else self._ended(record)

    def following(self, active: Active) -> Following:
        # Its last reader leaves on an event loop, so what follows from that is left to the watch.
        return Following(active.box, active, lambda _: self.note(), lambda: log_of(active.record, self.logs))

    def _ended(self, record: Record) -> Following:
        """A job that has ended, as its log has it."""
        box = Drawing(record.job)
        event = ended_event(record, self.logs)
        box.update(**event.changes(box.latest))
        return Following(box, log=lambda: log_of(record, self.logs))

    def enter(self, record: Record) -> Active:
        """A job that the store has is one of those that wait or run here."""
        job = record.job
        with self.changed:
            if job.id in self._active:
                return self._active[job.id]
            active = Active(record, Drawing(job, on_stop=lambda: self._stop(active)))
            self._active[job.id] = active
            self.note()
        self._entered(job)
        return active

    # An attempt's way.

    def claim(self, line: str, policy: Policy, resident: Collection[str] = ()) -> Active | None:
        """Begins an attempt, as of `Store.claim`, but of nobody who has left or was asked to stop, whatever
        is written down of that yet.

        Raises:
            StoreError, DiskFull.
        """

        def among_those_here(waiting: Sequence[Record], sight: Sight) -> Choice | None:
            return policy([record for record in waiting if self._wanted(record)], sight)

        with self._taking:
            self._pay()
            record = None if self.closing else self.store.claim(line, among_those_here, resident)
            if record is None:
                return None
            active = self._active[record.job.id]
            active.record, active.claimed = record, True
        self.note()
        return active

    def _pay(self) -> None:
        """Writes down what a full disk has kept from it."""
        while self._owed:
            self._owed[0]()
            del self._owed[0]

    def _wanted(self, record: Record) -> bool:
        active = self.get(record.job.id)
        return active is not None and not active.asked

    def begun(self, active: Active, drawing: Drawing, executor: Executor) -> None:
        """Its attempt is being drawn."""
        with self.changed:
            active.drawing, active.executor, active.begun = drawing, executor, time.monotonic()
        if active.box.stopping or self.cut:
            drawing.stop()

    def free(self, active: Active) -> None:
        """Nothing draws it now."""
        with self.changed:
            active.drawing = active.begun = active.executor = None
            self.changed.notify_all()

    def again(self, active: Active, killed: bool) -> None:
        """Puts an attempt's job back into its place, unless it was asked to stop meanwhile: it ends then.

        Args:
            killed: as of `Store.put_back`.
        """
        self.free(active)
        job = active.record.job.id
        active.claimed, active.waits = False, time.monotonic()  # first: another may claim it at once
        self.store.put_back(job, active.record.attempt, killed)
        after = self.store.get(job)
        if after is not None and after.state in ENDED:
            self.leave(active, replace(active.box.latest, phase="stopped", eta=None))
        else:
            self.note()

    def end(self, active: Active, last: Event) -> None:
        """Writes down how an attempt's job has ended, and tells its readers."""
        job, attempt = last.job.id, active.record.attempt
        phase, error, code = last.phase, last.error, last.code

        def end() -> None:
            self.store.end(job, attempt, phase, error, code)  # type: ignore[arg-type]

        try:
            end()
        except StepwiseError as failure:
            self._owed.append(end)
            last = active.failed(str(failure), failure.code)
        self.leave(active, last)

    def begin_no_more(self) -> None:
        """Nothing more is begun, and jobs that nobody can follow later are not kept: whoever waits for one is
        told so while there is a connection."""
        with self._taking, self.changed:  # no claim is half made
            self.closing = True
            self.changed.notify_all()
        for active in self.all():
            if active.kept == "call" and active.drawing is None:
                with self._logged("That a job isn't drawn any more"):
                    error = ServerEnding("The server is ending, and doesn't draw this any more.")
                    self.refuse(active, str(error), error.code)

    def cut_off(self) -> bool:
        """Nothing more is begun, and what is being drawn is kept for the next server. False: that was so
        already."""
        with self._taking, self.changed:
            if self.cut:
                return False
            self.closing = self.cut = True
            self.changed.notify_all()
        with self._logged("That jobs wait again"):
            self.write_stops()  # first: what was asked to stop isn't kept
            for record in self.store.running():  # all are this process' own, also those just claimed
                self.store.put_back(record.job.id, record.attempt)
        for active in self.running():
            if (drawing := active.drawing) is not None:
                drawing.stop()
        return True

    @contextlib.contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        """The end goes on where the disk doesn't take what should be written down."""
        try:
            yield
        except StepwiseError as error:
            log.error("%s can't be written down: %s", what, error)

    # Ends.

    def leave(self, active: Active, last: Event) -> None:
        """It is no longer here: its readers are told the last of it."""
        with self.changed:
            active.drawing = active.begun = active.executor = None
            if self._active.pop(last.job.id, None) is None:
                return  # another has ended it meanwhile
            self.note()
        self.account(active.record, last)
        active.box.update(**last.changes(active.box.latest))

    def refuse(self, active: Active, words: str, code: str = "failed") -> None:
        """Fails a job that waits."""
        if self.store.refuse(active.record.job.id, words, code):
            self.leave(active, replace(active.box.latest, phase="failed", error=words, code=code, eta=None))

    def give_up(self, active: Active, words: str, code: str) -> None:
        """As `refuse`, of a job that nobody would draw, also while nothing can be written down."""
        job = active.record.job.id
        with self._taking:  # so that it isn't begun meanwhile
            if active.claimed:
                return
            try:
                if not self.store.refuse(job, words, code):
                    return  # it was stopped just now
            except StepwiseError:
                self._owed.append(lambda: self.store.refuse(job, words, code))
            self.leave(active, active.failed(words, code))

    def refuse_all(self, jobs: Collection[str], error: StepwiseError) -> None:
        """Fails those of these that wait."""
        for active in self.all():
            if active.record.job.id in jobs:
                self.refuse(active, str(error), error.code)

    def account(self, record: Record, last: Event) -> None:
        """What is said of a job that has ended."""
        self._metrics.ended(record, last)
        self._journal.write(record, last)

    def keep(self, most_bytes: int, most_seconds: float) -> float:
        """Deletes what is past these bounds (`Rules`), or too many, of jobs that ended: files and records
        together. On a full disk the files go, and the records when there is room again.

        Returns:
            Seconds until the next of them passes its age; infinite where there is none.

        Raises:
            StoreError, DiskFull: the records can't be read.
        """
        self._tidy()  # so that the size is that of what is in it
        ended = {_file_name(job): (job, at) for job, at in self.store.ended()}

        def forget(name: str) -> int:
            with self._logged("That a job is forgotten"):
                return self.store.forget([ended[name][0]])
            return 0

        busy = [name_of(job) for job in list(self._active)]
        ends = {name: at for name, (_, at) in ended.items()}
        gone = keep(self.logs, most_bytes, most_seconds, busy, ends, self.store.size(), forget)
        if gone:
            self._tidy()
        oldest, left = time.time() - most_seconds, ends.keys() - set(gone)
        return min((ends[name] - oldest for name in left), default=math.inf)

    def _tidy(self) -> None:
        with self._logged("What is forgotten"):
            self.store.tidy()

    def _stop(self, active: Active) -> None:
        """A job is asked to stop, in any thread, an event loop's too: so it is the watch that writes it down.
        What has ended stays as it is."""
        with self.changed:
            if active.asked or self.get(active.record.job.id) is not active:
                return
            active.asked = True
            drawing = active.drawing
            self._stops.append(active)
            self.note()
        self._metrics.stopped(running=drawing is not None)
        if drawing is not None:
            drawing.stop()

    def write_stops(self) -> None:
        """Writes down who was asked to stop, and ends those of them that wait."""
        while True:
            with self.changed:
                if not self._stops:
                    return
                active = self._stops.popleft()
            self._write_stop(active)

    def _write_stop(self, active: Active) -> None:
        """A full disk keeps no job from ending: that is written down later, before anything is begun."""
        job, last = active.record.job.id, replace(active.box.latest, phase="stopped", eta=None)
        try:
            after = self.store.stop(job)
        except Exception as error:
            foreseen = isinstance(error, StepwiseError)
            log.error("A stop can't be written down: %s", error, exc_info=None if foreseen else error)
            with self._taking:  # so that it isn't begun meanwhile
                self._owed.append(lambda: self.store.stop(job))
                if not active.claimed:
                    self.leave(active, last)
            return
        if after is None or after.state == "stopped":  # it waited, whatever it did when it was asked
            self.leave(active, last)


def _file_name(job: str) -> str:
    """As `name_of`; an id that a bad disk has changed stands for itself, for no file is called by it."""
    try:
        return name_of(job)
    except ValueError:
        return job
