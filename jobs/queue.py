"""The one queue: every job is written down here, drawn in a fair order, and followed by whoever has its id.

A thread for each device claims the next job, has an executor draw it, writes each event to the attempt's log
and shows it to the job's readers. What a killed process leaves is taken up by the next one.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.downloads import Downloads
from jobs.executors import Executor
from jobs.folder import DataFolder
from jobs.following import Active, Following
from jobs.keeping import keep
from jobs.log import LogWriter, last_event, log_path
from jobs.pace import Pace
from jobs.rate import RateLimit
from jobs.record import ENDED, Choice, Kept, Owner, Record, Sight
from jobs.rules import Rules
from jobs.store import SqliteStore
from jobs.watch import Watch
from pipeline.drawing import Drawing
from pipeline.errors import Busy, DiskFull, StepwiseError, WorkerDied
from pipeline.events import Event
from pipeline.request import Job

if TYPE_CHECKING:
    from pipeline.engine import Engine

log = logging.getLogger("stepwise")

MOST_KILLS = 2
"""Workers that one job may take down; it is set aside then."""
MOST_ATTEMPTS = 3
"""Times that a job is begun, where it is the whole server that ended: it need not be the job's fault."""
NOT_READY = 0.25
"""Seconds after which an executor that wasn't ready is asked again."""
WITH_VISITOR = "zerogpu"
"""The line whose jobs are drawn inside their visitors' own calls: the quota is theirs."""


class Queue:
    """Jobs from their start to their end. Safe to use from any thread."""

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
        self.rules = rules
        self._folder = folder
        self._executors = executors
        self._store = SqliteStore(folder.database)
        self._rate = RateLimit(rules.rate)
        self._active: dict[str, Active] = {}
        self._changed = threading.Condition()
        self._entering = threading.Lock()
        """Held until a job that is in the store is among the active ones, too."""
        self._closing = self._cut = False
        self._pace = Pace(engine.catalogue, engine.device_name, folder.pace)
        self._watch = Watch(self)
        self._downloads = Downloads(engine, self._of_model, self._watch.note, self._unfetched)
        self._take_up()
        self._threads = [
            threading.Thread(target=self._serve, args=(line, executor), name=f"queue {line}", daemon=True)
            for line, several in executors.items()
            if line != WITH_VISITOR
            for executor in several
        ]
        for thread in self._threads:
            thread.start()

    # For clients.

    def start(self, job: Job, owner: Owner, kept: Kept = "call") -> Following:
        """Writes a job down and returns at once. A job whose id is known already is that job, as far as it
        has come.

        Raises:
            InvalidRequest, ModelUnavailable: as of `Engine.check`.
            Busy: no room, too many of this person's, too many a minute, or the server is ending.
            StoreError, DiskFull.
        """
        job = self.engine.checked(job)
        if (known := self.find(job.id)) is not None:
            return known
        if self._closing:
            raise Busy("This server is ending, and takes no new drawings. Try again in a minute.", 60)
        self._rate.check(owner.person)
        line = self.engine.line(job.model)
        with self._entering:
            record = self._store.add(job, line, owner, kept, self.rules.room, self.rules.each)
            if record.state in ENDED:  # another caller's, that began and ended just now
                return self._ended(record)
            active = self._enter(record)
        if line == WITH_VISITOR:
            # In the caller's context, where the platform that lends a GPU finds who asked for the picture.
            run = contextvars.copy_context().run
            threading.Thread(
                target=run, args=(self._draw_with_visitor, record), name=f"queue {job.id}", daemon=True
            ).start()
        return self._following(active)

    def find(self, job: str) -> Following | None:
        """The job with this id, whatever has become of it; None: unknown."""
        if (active := self._active.get(job)) is not None:
            return self._following(active)
        record = self._store.get(job)
        if record is None:
            return None
        if record.state not in ENDED:
            active = self._active.get(job)  # it was being entered
            return self._following(active or self._enter(record))
        return self._ended(record)

    def of(self, owner: Owner) -> list[Record]:
        """Jobs of a logged-in user, else of this very session; the newest first."""
        return self._store.of(owner)

    @property
    def ready(self) -> bool:
        """Whether it takes jobs and something could draw them."""
        several = [executor for line in self._executors.values() for executor in line]
        return not self._closing and (not several or any(executor.ready for executor in several))

    @property
    def alive(self) -> bool:
        """Whether every device is still served, and no drawing is past its deadline without an end."""
        return all(thread.is_alive() for thread in self._threads) and not self._watch.hung

    def drain(self, grace: float) -> None:
        """Accepts and begins nothing more, and waits for what runs to end: so many seconds at most."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running(), grace)

    def close(self) -> None:
        """Keeps what waits and what runs for the folder's next server, and lets go of the folder."""
        with self._changed:
            self._closing = self._cut = True
            self._changed.notify_all()
            left = self._running()
        for active in left:
            self._store.put_back(active.record.job.id, active.record.attempt)
            if active.drawing is not None:
                active.drawing.stop()
        self._watch.close()
        for several in self._executors.values():
            for executor in several:
                executor.close()
        self._pace.save()
        self._store.close()
        self._folder.close()

    # Drawing.

    def _serve(self, line: str, executor: Executor) -> None:
        """One device's thread."""
        while True:
            with self._changed:
                if self._closing:
                    return
                seen = self._watch.changes
                if not executor.ready:
                    self._changed.wait(NOT_READY)
                    continue
            try:
                record = self._claim(line, executor)
            except StepwiseError as error:  # the disk: what waits goes on waiting
                log.error("No job can be begun: %s", error)
                time.sleep(1)
                continue
            if record is not None:
                self._draw(record, executor)
                continue
            with self._changed:
                while not self._closing and self._watch.changes == seen:
                    self._changed.wait()

    def _claim(self, line: str, executor: Executor) -> Record | None:
        def policy(waiting: Sequence[Record], sight: Sight) -> Choice | None:
            here = [record for record in waiting if not self._downloads.holds(record.job.model)]
            return self.rules.policy(here, sight)

        record = self._store.claim(line, policy, executor.resident())
        if record is not None:
            self._watch.note()
        return record

    def _draw_with_visitor(self, record: Record) -> None:
        executor = self._executors[WITH_VISITOR][0]
        claimed = self._store.claim(record.line, lambda *_: Choice(record.job.id))
        if claimed is not None:
            self._draw(claimed, executor)

    def _draw(self, record: Record, executor: Executor) -> None:
        """One attempt, from its claim to its end."""
        with self._entering:
            active = self._enter(record)
        active.record = record
        job = record.job
        last = Event(
            job, "failed", error="The drawing ended without a result; try again.", code="drawing_failed"
        )
        loaded = job.model in executor.resident()
        writer = None
        try:
            writer = LogWriter(log_path(self._folder.logs, job.id, record.attempt))
            try:
                drawing = executor.start(job)
            except WorkerDied as error:  # before it was begun: not this job's fault
                log.warning("Job %s waits again: %s", job.id[:8], error)
                self._store.put_back(job.id, record.attempt)
                self._watch.note()
                return
            watch = self._pace.watch(job, loaded)
            with self._changed:
                active.drawing, active.begun = drawing, time.monotonic()
                active.executor = executor
            if active.box.stopping:
                drawing.stop()
            for event in drawing.events():
                watch.see(event)
                if event.last:
                    last = event
                    break
                active.show(event)
                writer.append(active.box.latest)
        except StepwiseError as error:
            last = replace(active.box.latest, phase="failed", error=str(error), code=error.code)
        except OSError as error:
            last = self._disk_failed(active, error)
        except Exception as error:
            log.exception("Job %s could not be drawn", job.id)
            last = replace(last, error=f"The drawing failed: {error!r}. Try again.")
        finally:
            with self._changed:
                active.drawing = active.begun = active.executor = None
                self._changed.notify_all()
        with contextlib.closing(writer) if writer else contextlib.nullcontext():
            self._conclude(active, last, writer)

    def _conclude(self, active: Active, last: Event, writer: LogWriter | None) -> None:
        """What became of an attempt: written down first, then told."""
        record, job = active.record, active.record.job
        if self._cut:
            return  # it was put back: the next server draws it
        if last.code == WorkerDied.code and not active.box.stopping and not active.late:
            if record.kills + 1 < MOST_KILLS:
                self._store.put_back(job.id, record.attempt, killed=True)
                if (
                    after := self._store.get(job.id)
                ) is not None and after.state in ENDED:  # stopped just now
                    self._leave(
                        active, active.as_shown(replace(last, phase="stopped", error=None, code=None))
                    )
                    return
                active.lost += (f"{last.error} Drawn again from the beginning.",)
                waits = replace(active.box.latest, phase="queued", step=0, image=1, images=(), eta=None)
                active.show(waits)
                self._watch.note()
                return
            words = f"It was set aside: {MOST_KILLS} processes that drew it ended. The last one: {last.error}"
            last = replace(last, error=words)
        if active.late:
            words = f"It took longer than {self.rules.draw:,.0f} s, the most that a drawing may take here."
            last = replace(
                last, phase="failed", error=f"{words} Try fewer steps or a smaller size.", code="late"
            )
        elif active.box.stopping and last.code == WorkerDied.code:
            last = replace(last, phase="stopped", error=None, code=None)
        shown = active.as_shown(last)
        try:
            if writer is not None:
                writer.append(shown)
        except OSError as error:
            shown = self._disk_failed(active, error)
        self._end(active, shown)

    def _end(self, active: Active, shown: Event) -> None:
        """Writes down that a job has ended, and tells its readers."""
        job = shown.job
        try:
            self._store.end(job.id, active.record.attempt, shown.phase, shown.error, shown.code)  # type: ignore[arg-type]
        except StepwiseError as error:
            shown = replace(shown, phase="failed", images=(), error=str(error), code=error.code)
        self._leave(active, shown)

    def _disk_failed(self, active: Active, error: OSError) -> Event:
        if active.drawing is not None:
            active.drawing.stop()
        full = DiskFull(f"The disk with {self._folder.path} can't be written to: {error.strerror or error}.")
        log.error("%s", full)
        return replace(active.box.latest, phase="failed", images=(), error=str(full), code=full.code)

    # Who is there.

    def _enter(self, record: Record) -> Active:
        job = record.job
        with self._changed:
            if job.id in self._active:
                return self._active[job.id]
            active = Active(record, Drawing(job, on_stop=lambda: self._stop(job.id)))
            self._active[job.id] = active
            self._watch.note()
        self._downloads.want(job.model)
        return active

    def _leave(self, active: Active, last: Event) -> None:
        with self._changed:
            self._active.pop(last.job.id, None)
            self._watch.note()
        active.box.update(**last.changes(active.box.latest))
        self._watch.ended(active, last)

    def _stop(self, job: str) -> None:
        active = self._active.get(job)
        drawing = active.drawing if active is not None else None
        if drawing is not None:
            drawing.stop()  # first: steps would be drawn while the disk is waited for
        record = self._store.stop(job)
        if active is None or record is None or drawing is not None:
            return
        if record.state == "stopped":  # it waited
            self._leave(active, replace(active.box.latest, phase="stopped", eta=None))
        elif (drawing := active.drawing) is not None:  # it has just begun
            drawing.stop()

    def _left(self, active: Active) -> None:
        """Its last reader has gone. Called on an event loop, so what follows is left to the watch."""
        self._watch.note()

    def _following(self, active: Active) -> Following:
        return Following(active.box, active, self._left, lambda: self._log(active.record))

    def _log(self, record: Record) -> Path | None:
        if not record.attempt:
            return None
        return log_path(self._folder.logs, record.job.id, record.attempt)

    def _running(self) -> list[Active]:
        return [active for active in self._active.values() if active.drawing is not None]

    def _of_model(self, model: str) -> list[Drawing]:
        return [one.box for one in list(self._active.values()) if one.record.job.model == model]

    # What is there already.

    def _ended(self, record: Record) -> Following:
        """A job that has ended, as its log has it."""
        box = Drawing(record.job)
        path = self._log(record)
        event = last_event(path) if path is not None and path.exists() else None
        if event is None or not event.last:
            error = record.error
            if record.state == "finished":
                error = "Its pictures are no longer there."
            event = Event(record.job, phase=record.state, error=error, code=record.code)  # type: ignore[arg-type]
        box.update(**event.changes(box.latest))
        return Following(box, log=lambda: path)

    def _take_up(self) -> None:
        """What the last server was drawing is drawn again, unless it had just ended; what waited, waits."""
        for record in self._store.running():
            job = record.job
            path = self._log(record)
            event = last_event(path) if path is not None and path.exists() else None
            if event is not None and event.last:
                self._store.end(job.id, record.attempt, event.phase, event.error, event.code)  # type: ignore[arg-type]
            elif record.stop:
                self._store.end(job.id, record.attempt, "stopped")
            elif record.attempt >= MOST_ATTEMPTS:
                words = f"The server ended {record.attempt} times while it drew this; it isn't tried again."
                self._store.end(job.id, record.attempt, "failed", words, WorkerDied.code)
            else:
                self._store.put_back(job.id, record.attempt)
        for line in self._store.lines():
            for record in self._store.waiting(line):
                reason = self._gone(record)
                if reason:
                    self._store.refuse(record.job.id, reason, "model_unavailable")
                else:
                    self._enter(record)
        self._keep()

    def _gone(self, record: Record) -> str:
        """Why a job that waited can't be drawn by this server; empty where it can."""
        if record.line == WITH_VISITOR:
            return "The Space restarted while this waited for a GPU of your quota. Draw again."
        try:
            self.engine.checked(record.job)
        except StepwiseError as error:
            return str(error)
        if self.engine.line(record.job.model) not in self._executors:
            return "The server has another device since it restarted. Draw again."
        return ""

    def _keep(self) -> None:
        """Deletes what is past its bounds."""
        busy = list(self._active)
        gone = keep(self._folder.logs, self.rules.most_bytes, self.rules.most_seconds, busy)
        oldest = time.time() - self.rules.most_seconds
        old = [one.job.id for one in self._store.ended() if (one.ended or 0) < oldest]
        self._store.forget({*gone, *old})

    # What ends otherwise.

    def _unfetched(self, model: str, error: StepwiseError) -> None:
        """A model couldn't be fetched: everyone who waits for it is told why."""
        for active in list(self._active.values()):
            if active.record.job.model == model:
                self._refuse(active, str(error), error.code)

    def _refuse(self, active: Active, words: str, code: str = "failed") -> None:
        """Ends a job that waits."""
        if self._store.refuse(active.record.job.id, words, code):
            self._leave(active, replace(active.box.latest, phase="failed", error=words, code=code, eta=None))

    def _kill(self, active: Active) -> bool:
        """Ends an attempt that doesn't listen, with the process that draws it. False: it can't be."""
        return active.executor is not None and active.executor.kill()
