"""Stops, attempts that end or are lost, refusals and restarts meet in any order: whoever was told of a job is
told of its end, and no job waits that nobody would draw.

The active jobs and the store are real; no picture is drawn, for what would draw does as the test says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from jobs.lifecycle.active_jobs import ActiveJobs
from jobs.lifecycle.tracked_job import TrackedJob
from jobs.scheduling.fair_share import Fair
from jobs.states import ENDED
from jobs.store.database import Database
from jobs.store.models import Owner
from jobs.store.sqlite import SqliteStore
from jobs.telemetry.job_log import JobLog
from jobs.telemetry.metrics import Metrics
from pipeline.errors import DiskFull
from pipeline.events import Event
from tests.jobs.waiting import LINE, job

ANN = Owner("user:ann")
HOLDER: Any = None
"""What draws: it is only kept."""


def jobs_of(path: Path) -> ActiveJobs:
    return ActiveJobs(SqliteStore(path), path.parent, Metrics(["sketch"]), JobLog(False), lambda _: None)


def consistent(active_jobs: ActiveJobs) -> None:
    """What is so whenever nobody is in the middle of anything."""
    active = {one.record.job.id: one for one in active_jobs.all()}
    assert not any(one.latest.last for one in active.values()), "who was told of an end has left"
    for waiting in active_jobs.store.waiting(LINE):
        assert waiting.job.id in active, "what waits is known to whoever gives out jobs"
    for running in active_jobs.store.running():
        assert active[running.job.id].claimed, "what runs has an attempt"


class Jobs(RuleBasedStateMachine):
    """One device, and whoever starts and stops jobs. Each rule is one thing that happens."""

    jobs: Bundle[TrackedJob] = Bundle("jobs")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(FOLDER[0]) / f"{next(NUMBERS)}"
        self.folder.mkdir()
        self.active = jobs_of(self.folder / "jobs.sqlite")
        self.full = False
        self.drawn: TrackedJob | None = None
        self.ever: list[TrackedJob] = []
        real = self.active.store

        class Disk:
            """The store, on a disk that is full now and then."""

            def __getattr__(_, name: str) -> Any:
                if self.full and name in ("stop", "refuse", "finish", "claim"):
                    return self._no_room
                return getattr(real, name)

        self.active.store = Disk()  # type: ignore[assignment]

    def _no_room(self, *_: Any) -> None:
        raise DiskFull("The disk is full.")

    @rule(target=jobs)
    def start(self) -> Any:
        try:
            following = self.active.add(lambda store: store.add(job(), LINE, ANN, "detached", 10**6, 10**6))
        except DiskFull:  # an end is still to be written down
            assert self.full
            return multiple()
        assert following.tracked is not None
        self.ever.append(following.tracked)
        return following.tracked

    @rule(full=st.booleans())
    def the_disk(self, full: bool) -> None:
        self.full = full

    @rule(one=jobs)
    def stop(self, one: TrackedJob) -> None:
        one.stop()

    @rule()
    def watch(self) -> None:
        self.active.write_stops()

    @rule(one=jobs)
    def refuse(self, one: TrackedJob) -> None:
        try:
            self.active.refuse(one, "It can't be drawn.", "failed")
        except DiskFull:
            assert self.full

    @rule()
    def claim(self) -> None:
        if self.drawn is None:
            try:
                self.drawn = self.active.claim(LINE, Fair())
            except DiskFull:
                return
            if self.drawn is not None:
                assert not self.drawn.stop_asked, "what was stopped is never begun"

    @rule()
    def draw(self) -> None:
        if self.drawn is not None and self.drawn.attempt is None:
            cancel = self.active.begin(self.drawn, HOLDER)
            assert cancel.is_set == self.drawn.stop_asked

    @rule(killed=st.booleans())
    def lose(self, killed: bool) -> None:
        if self.drawn is not None:
            self.active.requeue(self.drawn, killed)
            self.drawn = None

    @rule()
    def finish(self) -> None:
        if self.drawn is not None:
            phase = "stopped" if self.drawn.stop_asked else "finished"
            self.active.finish(self.drawn, Event(self.drawn.record.job, phase))  # type: ignore[arg-type]
            self.drawn = None

    @invariant()
    def no_job_waits_that_nobody_draws(self) -> None:
        if not self.full and not self.active._unwritten and not self.active._stops:
            consistent(self.active)

    def teardown(self) -> None:
        if not hasattr(self, "active"):
            return
        # From anywhere, all come to their ends: those that were stopped without being drawn.
        self.full = False
        active_jobs = self.active
        active_jobs.write_stops()
        if self.drawn is not None:
            self.finish()
        while (drawn := active_jobs.claim(LINE, Fair())) is not None:
            assert not drawn.stop_asked
            active_jobs.finish(drawn, Event(drawn.record.job, "finished"))
        consistent(active_jobs)
        assert active_jobs.all() == [] and active_jobs.running() == []
        for one in self.ever:
            assert one.latest.last
            record = active_jobs.store.get(one.record.job.id)
            assert record is not None and record.state in ENDED
        active_jobs.store.close()


FOLDER: list[str] = [""]
NUMBERS: Iterator[int] = iter(range(10**9))
TestJobs = Jobs.TestCase
TestJobs.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),  # to explain, it traces every line
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    FOLDER[0] = str(tmp_path_factory.mktemp("jobs"))
    writing = Database.writing
    with pytest.MonkeyPatch.context() as patch:  # no power cut is tried here, and syncing takes its time
        patch.setattr(Database, "writing", lambda database, durable=False: writing(database))
        yield


@pytest.mark.parametrize("stopped_while", ["running", "freed", "put back", "looked at"])
def test_a_stop_that_meets_a_put_back_ends_the_job_wherever_they_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_while: str
) -> None:
    active_jobs = jobs_of(tmp_path / "jobs.sqlite")
    following = active_jobs.add(lambda store: store.add(job(), LINE, ANN, "detached", 5, 5))
    active = active_jobs.claim(LINE, Fair())
    assert active is not None
    active_jobs.begin(active, HOLDER)

    def stop() -> None:
        """By another thread: it looks at the job now, and writes after the put back, as late as may be."""
        following.stop()

    def then(function: Any, before: bool) -> Any:
        def call(*args: Any) -> Any:
            if before:
                stop()
            answer = function(*args)
            if not before:
                stop()
            return answer

        return call

    if stopped_while == "running":
        stop()
    elif stopped_while == "freed":
        monkeypatch.setattr(active_jobs.store, "requeue", then(active_jobs.store.requeue, True))
    elif stopped_while == "put back":
        monkeypatch.setattr(active_jobs.store, "requeue", then(active_jobs.store.requeue, False))
    else:
        monkeypatch.setattr(active_jobs.store, "get", then(active_jobs.store.get, False))
    active_jobs.requeue(active, killed=True)
    active_jobs.write_stops()
    assert following.latest.phase == "stopped"
    consistent(active_jobs)
    assert active_jobs.all() == []
    active_jobs.store.close()


def test_a_stop_that_is_being_written_down_while_its_job_is_put_back_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    active_jobs = jobs_of(tmp_path / "jobs.sqlite")
    following = active_jobs.add(lambda store: store.add(job(), LINE, ANN, "detached", 5, 5))
    active = active_jobs.claim(LINE, Fair())
    assert active is not None
    active_jobs.begin(active, HOLDER)
    writing, requeued, store_stop = threading.Event(), threading.Event(), active_jobs.store.stop

    def slow(one: str) -> Any:
        writing.set()
        assert requeued.wait(60)
        return store_stop(one)

    monkeypatch.setattr(active_jobs.store, "stop", slow)

    def stop() -> None:
        following.stop()
        active_jobs.write_stops()

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert writing.wait(60)
    active_jobs.requeue(active, killed=True)
    requeued.set()
    stopping.join()
    assert following.latest.phase == "stopped"
    assert active_jobs.all() == []
    active_jobs.store.close()
