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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.attempt import Attempt
from jobs.downloads import Downloads
from jobs.executors import Executor
from jobs.folder import DataFolder
from jobs.following import Active, Following
from jobs.journal import Journal
from jobs.keeping import keep
from jobs.metrics import Metrics
from jobs.pace import Pace
from jobs.rate import RateLimit
from jobs.record import ENDED, Choice, Kept, Owner, Record, Sight
from jobs.recovery import WITH_VISITOR, ended_event, log_of, take_up
from jobs.rules import Rules
from jobs.store import SqliteStore
from jobs.watch import PATIENCE, Watch
from pipeline.drawing import Drawing
from pipeline.errors import Busy, DrawingFailed, StepwiseError
from pipeline.events import Event
from pipeline.request import Job

if TYPE_CHECKING:
    from pipeline.engine import Engine

log = logging.getLogger("stepwise")

NOT_READY = 0.25
"""Seconds after which an executor that wasn't ready is asked again."""
RETRY = 1.0
"""Seconds until something that failed for the disk's sake, or unforeseen, is tried again."""


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
        self._taking = threading.Lock()  # while a job is written down and entered, so that nobody sees half
        self._owed: list[Callable[[], object]] = []  # ends that a full disk kept from being written down
        self._broken = ""  # why nothing can be begun
        self._changed = threading.Condition()
        self._closing = self._cut = False
        self._pace = Pace(engine.catalogue, engine.device_name, folder.pace)
        models = {spec.id: engine.line(spec.id) for spec in engine.catalogue}
        self.metrics = Metrics(models, executors, lambda: list(self._active.values()), engine.gpu_memory)
        self._journal = Journal(rules.log_prompts)
        self._watch = Watch(self)
        self._downloads = Downloads(engine, self._of_model, self._watch.note, self._unfetched)
        lost = self.metrics.lost
        for record in take_up(
            self._store, folder.logs, engine, executors, self._account, lambda _: lost("server")
        ):
            self._enter(record)
        self._keep()
        self._threads = [
            threading.Thread(target=self._serve, args=(line, executor), name=f"queue {line}", daemon=True)
            for line, several in executors.items()
            if line != WITH_VISITOR
            for executor in several
        ]
        for thread in self._threads:
            thread.start()

    # For clients.

    def check(self, values: Mapping[str, Any]) -> Job:
        """As `Engine.check`; who is refused is counted."""
        with self.metrics.refusals():
            return self.engine.check(values)

    def start(self, job: Job, owner: Owner, kept: Kept = "call") -> Following:
        """Writes a job down and returns at once. A job whose id is known already is that job, as far as it
        has come.

        Raises:
            InvalidRequest, ModelUnavailable: as of `Engine.check`.
            Busy: no room, too many of this person's, too many a minute, or the server is ending.
            StoreError, DiskFull.
        """
        with self.metrics.refusals():
            job = self.engine.checked(job)
            if (known := self.find(job.id)) is not None:
                return known
            if self._closing:
                self.metrics.refused("draining")
                raise Busy("This server is ending, and takes no new drawings.", 60)
            self._rate.check(owner.person)
            return self._add(job, owner, kept)

    def _add(self, job: Job, owner: Owner, kept: Kept) -> Following:
        line = self.engine.line(job.model)
        with self._taking:
            try:
                record = self._store.add(job, line, owner, kept, self.rules.room, self.rules.each)
            except Busy as busy:
                self._explain(busy, line, owner)
                raise
            if record.state in ENDED:  # another caller's, that began and ended just now
                return self._ended(record)
            active = self._enter(record)
        if line == WITH_VISITOR:
            # In the caller's context, where the platform that lends a GPU finds who asked for the picture.
            run = contextvars.copy_context().run
            threading.Thread(
                target=run, args=(self._draw_with_visitor, record), name=f"queue {job.short_id}", daemon=True
            ).start()
        else:
            with contextlib.suppress(StepwiseError):  # the disk; the watch tries again
                self._watch.tell(line)  # before its first reader looks
        return self._following(active)

    def _explain(self, busy: Busy, line: str, owner: Owner) -> None:
        """Counts a refusal, and says when to come back where the store couldn't."""
        there = [active for active in list(self._active.values()) if active.begun is None]
        theirs = [active for active in there if active.record.owner.person == owner.person]
        too_many = len(theirs) >= self.rules.each
        self.metrics.refused("too_many" if too_many else "line_full")
        if busy.retry_after is None:
            busy.retry_after = self._watch.until_one_begins(theirs if too_many else there, line)

    def find(self, job: str) -> Following | None:
        """The job with this id, whatever has become of it; None: unknown."""
        if (active := self._active.get(job)) is not None:
            return self._following(active)
        with self._taking:  # it may be being entered
            if (active := self._active.get(job)) is not None:
                return self._following(active)
            record = self._store.get(job)
        return None if record is None else self._ended(record)

    def of(self, owner: Owner) -> list[Record]:
        """Jobs of a logged-in user, else of this very session; the newest first."""
        return self._store.of(owner)

    def not_ready(self) -> str:
        """Why nothing could be begun now, in words; empty where something could. A model that must be loaded
        first is no reason: its job would begin with that."""
        if self._closing:
            return "draining: the server is ending, and takes no new drawings"
        if self._broken:
            return self._broken
        several = [executor for line in self._executors.values() for executor in line]
        if several and not any(executor.ready for executor in several):
            return "what draws is being started"
        return ""

    def not_alive(self) -> str:
        """Why jobs aren't drawn any more although they should, in words; empty where they are."""
        if self._closing:
            return ""  # its threads end because they were told to
        dead = [thread.name for thread in self._threads if not thread.is_alive()]
        if dead:
            return f"a thread has ended that gives out jobs: {', '.join(dead)}"
        now, most = time.monotonic(), self.rules.draw + 2 * PATIENCE
        if any(one.begun is not None and now - one.begun > most for one in list(self._active.values())):
            return f"a drawing has gone on for more than {most:,.0f} s, and can't be ended"
        return self._watch.not_alive()

    def drain(self, grace: float) -> bool:
        """Accepts and begins nothing more, and waits for what runs to end: so many seconds at most. Whether
        anything ran."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            ran = bool(self._running())
            self._changed.wait_for(lambda: not self._running(), grace)
        return ran

    def close(self) -> None:
        """Keeps what waits and what runs for the folder's next server, and lets go of the folder."""
        with self._changed:
            if self._cut:
                return
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
                self._broken = ""
            except Exception as error:  # the disk, most likely: what waits goes on waiting
                if self._closing:
                    return
                foreseen = isinstance(error, StepwiseError)
                log.error("No job can be begun: %s", error, exc_info=None if foreseen else error)
                self._broken = str(error) if foreseen else "no job can be begun; the log has the details"
                time.sleep(RETRY)
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

        with self._taking:
            while self._owed:
                self._owed[0]()
                del self._owed[0]
            record = self._store.claim(line, policy, executor.resident())
        if record is not None:
            self._watch.note()
        return record

    def _draw_with_visitor(self, record: Record) -> None:
        try:
            claimed = self._store.claim(record.line, lambda *_: Choice(record.job.id))
        except StepwiseError as error:
            if (active := self._active.get(record.job.id)) is not None:
                self._leave(active, active.failed(str(error), error.code))
            return
        if claimed is not None:
            self._draw(claimed, self._executors[WITH_VISITOR][0])

    def _draw(self, record: Record, executor: Executor) -> None:
        """One attempt, from its claim to its end. Never raises: no job may end the thread that gives out the
        next one."""
        with self._taking:
            active = self._enter(record)
        active.record = record
        try:
            Attempt(self, active, executor).run()
        except Exception:
            log.exception("Job %s: its end", record.job.short_id)
            self._free(active)
            words = "Something went wrong in the server; its log has the details. Draw it again."
            self._end(active, active.failed(words, DrawingFailed.code))

    def _free(self, active: Active) -> None:
        """Nothing draws it now."""
        with self._changed:
            active.drawing = active.begun = active.executor = None
            self._changed.notify_all()

    def _again(self, active: Active, killed: bool) -> bool:
        """Puts an attempt's job back into its place. False: it was asked to stop meanwhile, and has ended."""
        self._free(active)
        job = active.record.job.id
        self._store.put_back(job, active.record.attempt, killed)
        after = self._store.get(job)
        if after is not None and after.state in ENDED:
            self._leave(active, replace(active.box.latest, phase="stopped", eta=None))
            return False
        self._watch.note()
        return True

    def _end(self, active: Active, shown: Event) -> None:
        """Writes down that a job has ended, and tells its readers."""
        job, attempt = shown.job.id, active.record.attempt
        phase, error, code = shown.phase, shown.error, shown.code

        def end() -> None:
            self._store.end(job, attempt, phase, error, code)  # type: ignore[arg-type]

        try:
            end()
        except StepwiseError as failure:
            self._owed.append(end)
            shown = active.failed(str(failure), failure.code)
        self._leave(active, shown)

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
            active.drawing = active.begun = active.executor = None
            if self._active.pop(last.job.id, None) is None:
                return  # another has ended it meanwhile
            self._watch.note()
        self._account(active.record, last)
        active.box.update(**last.changes(active.box.latest))

    def _account(self, record: Record, last: Event) -> None:
        """What is said of a job that has ended."""
        self.metrics.ended(record, last)
        self._journal.write(record, last)

    def _stop(self, job: str) -> None:
        active = self._active.get(job)
        drawing = active.drawing if active is not None else None
        if drawing is not None:
            drawing.stop()  # first: steps would be drawn while the disk is waited for
        if active is not None and not active.asked:
            active.asked = True
            self.metrics.stopped(running=drawing is not None)
        try:
            record = self._store.stop(job)
        except StepwiseError as error:
            if drawing is None:
                raise
            log.error("That a job was stopped can't be written down: %s", error)
            return
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
        return Following(active.box, active, self._left, lambda: log_of(active.record, self._folder.logs))

    def _running(self) -> list[Active]:
        return [active for active in self._active.values() if active.drawing is not None]

    def _resident(self, line: str) -> set[str]:
        return {model for executor in self._executors[line] for model in executor.resident()}

    def _of_model(self, model: str) -> list[Drawing]:
        return [one.box for one in list(self._active.values()) if one.record.job.model == model]

    def _ended(self, record: Record) -> Following:
        """A job that has ended, as its log has it."""
        box = Drawing(record.job)
        event = ended_event(record, self._folder.logs)
        box.update(**event.changes(box.latest))
        return Following(box, log=lambda: log_of(record, self._folder.logs))

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
