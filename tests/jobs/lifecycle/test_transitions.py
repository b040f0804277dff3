"""Stops, attempts that end or are lost, refusals and restarts meet in any order: whoever was told of a job is
told of its end, and no job waits that nobody would draw.

The register and the store are real; no picture is drawn, for what would draw does as the test says.
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
from jobs.lifecycle.subscription import Active
from jobs.scheduling.fair_share import Fair
from jobs.store.database import Database
from jobs.store.models import ENDED, Owner
from jobs.store.sqlite import SqliteStore
from jobs.telemetry.job_log import JobLog
from jobs.telemetry.metrics import Metrics
from pipeline.drawing import Drawing
from pipeline.errors import DiskFull
from pipeline.events import Event
from tests.jobs.waiting import LINE, job

ANN = Owner("user:ann")
HOLDER: Any = None
"""What draws: the register only keeps it."""


def register_of(path: Path) -> ActiveJobs:
    return ActiveJobs(SqliteStore(path), path.parent, Metrics(["sketch"]), JobLog(False), lambda _: None)


def consistent(register: ActiveJobs) -> None:
    """What is so whenever nobody is in the middle of anything."""
    active = {one.record.job.id: one for one in register.all()}
    assert not any(one.box.latest.last for one in active.values()), "who was told of an end has left"
    for waiting in register.store.waiting(LINE):
        assert waiting.job.id in active, "what waits is known to whoever gives out jobs"
    for running in register.store.running():
        assert active[running.job.id].claimed, "what runs has an attempt"


class Jobs(RuleBasedStateMachine):
    """One device, and whoever starts and stops jobs. Each rule is one thing that happens."""

    jobs: Bundle[Active] = Bundle("jobs")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(FOLDER[0]) / f"{next(NUMBERS)}"
        self.folder.mkdir()
        self.register = register_of(self.folder / "jobs.sqlite")
        self.full = False
        self.drawn: Active | None = None
        self.ever: list[Active] = []
        real = self.register.store

        class Disk:
            """The store, on a disk that is full now and then."""

            def __getattr__(_, name: str) -> Any:
                if self.full and name in ("stop", "refuse", "end", "claim"):
                    return self._no_room
                return getattr(real, name)

        self.register.store = Disk()  # type: ignore[assignment]

    def _no_room(self, *_: Any) -> None:
        raise DiskFull("The disk is full.")

    @rule(target=jobs)
    def start(self) -> Any:
        try:
            following = self.register.add(job(), LINE, ANN, "detached", 10**6, 10**6)
        except DiskFull:  # an end is still to be written down
            assert self.full
            return multiple()
        assert following.active is not None
        self.ever.append(following.active)
        return following.active

    @rule(full=st.booleans())
    def the_disk(self, full: bool) -> None:
        self.full = full

    @rule(one=jobs)
    def stop(self, one: Active) -> None:
        one.box.stop()

    @rule()
    def watch(self) -> None:
        self.register.write_stops()

    @rule(one=jobs)
    def refuse(self, one: Active) -> None:
        self.register.give_up(one, "It can't be drawn.", "failed")

    @rule()
    def claim(self) -> None:
        if self.drawn is None:
            try:
                self.drawn = self.register.claim(LINE, Fair())
            except DiskFull:
                return
            if self.drawn is not None:
                assert not self.drawn.asked, "what was stopped is never begun"

    @rule()
    def draw(self) -> None:
        if self.drawn is not None and self.drawn.drawing is None:
            self.register.begun(self.drawn, Drawing(self.drawn.record.job), HOLDER)
            if self.drawn.asked:
                assert self.drawn.drawing is not None and self.drawn.drawing.stopping

    @rule(killed=st.booleans())
    def lose(self, killed: bool) -> None:
        if self.drawn is not None:
            self.register.again(self.drawn, killed)
            self.drawn = None

    @rule()
    def finish(self) -> None:
        if self.drawn is not None:
            phase = "stopped" if self.drawn.asked else "finished"
            self.register.end(self.drawn, Event(self.drawn.record.job, phase))  # type: ignore[arg-type]
            self.drawn = None

    @invariant()
    def no_job_waits_that_nobody_draws(self) -> None:
        if not self.full and not self.register._owed and not self.register._stops:
            consistent(self.register)

    def teardown(self) -> None:
        if not hasattr(self, "register"):
            return
        # From anywhere, all come to their ends: those that were stopped without being drawn.
        self.full = False
        register = self.register
        register.write_stops()
        if self.drawn is not None:
            self.finish()
        while (drawn := register.claim(LINE, Fair())) is not None:
            assert not drawn.asked
            register.end(drawn, Event(drawn.record.job, "finished"))
        consistent(register)
        assert register.all() == [] and register.running() == []
        for one in self.ever:
            assert one.box.latest.last
            record = register.store.get(one.record.job.id)
            assert record is not None and record.state in ENDED
        register.store.close()


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
    FOLDER[0] = str(tmp_path_factory.mktemp("registers"))
    writing = Database.writing
    with pytest.MonkeyPatch.context() as patch:  # no power cut is tried here, and syncing takes its time
        patch.setattr(Database, "writing", lambda database, durable=False: writing(database))
        yield


@pytest.mark.parametrize("stopped_while", ["running", "freed", "put back", "looked at"])
def test_a_stop_that_meets_a_put_back_ends_the_job_wherever_they_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_while: str
) -> None:
    register = register_of(tmp_path / "jobs.sqlite")
    following = register.add(job(), LINE, ANN, "detached", 5, 5)
    active = register.claim(LINE, Fair())
    assert active is not None
    register.begun(active, Drawing(active.record.job), HOLDER)

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
        monkeypatch.setattr(register.store, "put_back", then(register.store.put_back, True))
    elif stopped_while == "put back":
        monkeypatch.setattr(register.store, "put_back", then(register.store.put_back, False))
    else:
        monkeypatch.setattr(register.store, "get", then(register.store.get, False))
    register.again(active, killed=True)
    register.write_stops()
    assert following.latest.phase == "stopped"
    consistent(register)
    assert register.all() == []
    register.store.close()


def test_a_stop_that_is_being_written_down_while_its_job_is_put_back_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = register_of(tmp_path / "jobs.sqlite")
    following = register.add(job(), LINE, ANN, "detached", 5, 5)
    active = register.claim(LINE, Fair())
    assert active is not None
    register.begun(active, Drawing(active.record.job), HOLDER)
    writing, put_back, store_stop = threading.Event(), threading.Event(), register.store.stop

    def slow(one: str) -> Any:
        writing.set()
        assert put_back.wait(60)
        return store_stop(one)

    monkeypatch.setattr(register.store, "stop", slow)

    def stop() -> None:
        following.stop()
        if hasattr(register, "write_stops"):
            register.write_stops()

    stopping = threading.Thread(target=stop)
    stopping.start()
    assert writing.wait(60)
    register.again(active, killed=True)
    put_back.set()
    stopping.join()
    assert following.latest.phase == "stopped"
    assert register.all() == []
    register.store.close()
