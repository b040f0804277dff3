"""However many have been here, and whatever they called themselves: the file stays small, and gets small
again when they are forgotten."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import strangers
from jobs.lifecycle.ended_jobs import EndedJobs
from jobs.store.database import LOG_BYTES
from jobs.store.log_names import log_path
from jobs.store.models import Owner
from jobs.store.owner_names import person_of, session_of
from jobs.store.sqlite import SqliteStore
from pipeline.engine import Engine
from pipeline.errors import DiskFull
from tests.conftest import ROOT
from tests.jobs.queueing import ANN, Make, until
from tests.jobs.queueing import job as asked
from tests.jobs.store.old_store import SECOND, make_old
from tests.jobs.store.stored_jobs import ROOMY, stopped
from tests.jobs.waiting import LINE, job, owner

HOUR = 3600.0
LONG = "s" * 200_000
"""A session of an older version."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


@pytest.fixture
def ended_jobs(store: SqliteStore, tmp_path: Path) -> EndedJobs:
    return EndedJobs(store, tmp_path / "events")


def size(path: Path) -> int:
    """Bytes of the file and its log."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*") if "-shm" not in file.name)


# Size.


def test_the_database_counts_as_kept_and_shrinks_to_the_bound(
    store: SqliteStore, ended_jobs: EndedJobs, path: Path
) -> None:
    ids = stopped(store, 100)
    assert size(path) > 900_000
    ended_jobs.delete_old(300_000, HOUR, ())
    assert size(path) <= 300_000
    left = [one.job for one in store.ended()]
    assert 20 <= len(left) < 40
    assert left == ids[-len(left) :]  # those that ended first went


def test_events_and_records_share_one_bound(store: SqliteStore, ended_jobs: EndedJobs, path: Path) -> None:
    ended_jobs.logs.mkdir()
    first, *_ = stopped(store, 20)
    (ended_jobs.logs / f"{'0' * 32}.1.events").write_bytes(bytes(400_000))
    before = size(path)
    ended_jobs.delete_old(before + 400_000, HOUR, ())
    assert store.get(first) is not None
    ended_jobs.delete_old(400_000, HOUR, ())
    assert store.get(first) is None
    assert size(path) <= 400_000


def test_only_so_many_jobs_that_ended_are_kept(
    store: SqliteStore, ended_jobs: EndedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.store.retention.MOST_JOBS", 5)
    ids = stopped(store, 9, "a fox")
    waits = store.add(job(), LINE, owner(), "page", *ROOMY)
    ended_jobs.delete_old(10**9, HOUR, ())
    assert [one.job for one in store.ended()] == ids[4:]
    assert store.waiting(LINE) == [waits]


def test_many_changes_are_looked_through_at_once(
    tiny: Engine, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.scheduling.housekeeping.KEEPING", HOUR)
    monkeypatch.setattr("jobs.scheduling.housekeeping.MANY", 5)
    queue = make(most_bytes=1)
    jobs = [queue.start(asked(tiny), ANN) for _ in range(5)]
    for one in jobs:
        one.stop()
    until(lambda: any(queue.find(one.job.id) is None for one in jobs))


def test_a_file_that_is_forgotten_gets_small_again(store: SqliteStore, path: Path) -> None:
    ids = stopped(store, 300)
    before = size(path)
    assert before > 2_700_000
    freed = store.forget(ids)
    assert 2_700_000 < freed < before
    store.tidy()
    assert size(path) < 120_000
    assert not path.with_name("jobs.sqlite-wal").stat().st_size
    assert stopped(store, 1)  # and goes on


def test_the_log_of_a_long_transaction_is_given_back(store: SqliteStore, path: Path) -> None:
    log = path.with_name("jobs.sqlite-wal")
    with store._database.writing():
        for _ in range(1000):
            store._database.run("INSERT INTO served VALUES (?, ?, 1.0)", str(uuid.uuid4()), "s" * 9000)
    assert log.stat().st_size > 2 * LOG_BYTES
    stopped(store, 3)
    assert log.stat().st_size <= LOG_BYTES


def test_who_reads_the_file_meanwhile_holds_nobody_up(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(store, 3)
    other = sqlite3.connect(path)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM jobs").fetchall()
    stopped(store, 3)
    store.tidy()
    assert "Another process reads jobs.sqlite" in caplog.text
    other.close()
    caplog.clear()
    store.tidy()
    assert not caplog.records
    assert not path.with_name("jobs.sqlite-wal").stat().st_size


def test_a_full_disk_keeps_no_file_from_being_deleted(
    store: SqliteStore,
    ended_jobs: EndedJobs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended_jobs.logs.mkdir()
    ids = stopped(store, 3)
    for id_ in ids:
        log_path(ended_jobs.logs, id_, 1).write_bytes(bytes(1000))

    def full(*_: object) -> int:
        raise DiskFull("It is full.")

    with monkeypatch.context() as disk:
        disk.setattr(SqliteStore, "forget", full)
        disk.setattr(SqliteStore, "tidy", full)
        ended_jobs.delete_old(1, HOUR, ())
    assert not list(ended_jobs.logs.iterdir())
    assert "It is full." in caplog.text
    assert len(store.ended()) == 3
    ended_jobs.delete_old(1, HOUR, ())
    assert store.ended() == []


# An older version's file.


def old_file(path: Path, jobs: int) -> dict[str, str]:
    """Of version 2, whose sessions and users are as long as their clients made them: ids by session."""
    connection = make_old(path, SECOND, 2)
    ids = {}
    with connection:
        for number in range(jobs):
            one, session = job(), f"{LONG}{number}"
            ids[session] = one.id
            connection.execute(
                "INSERT INTO jobs (id, line, person, session, first, kept, state, created, ended, job) "
                "VALUES (?, ?, 'address:A', ?, 0, 'visit', 'finished', 1.0, ?, ?)",
                (one.id, LINE, session, time.time(), one.model_dump_json()),
            )
            connection.execute("INSERT INTO served VALUES ('address:A', ?, ?)", (session, 100.0 + number))
    connection.close()
    return ids


def test_an_older_versions_long_sessions_are_found_and_its_file_is_small_again(path: Path) -> None:
    ids = old_file(path, 20)
    assert size(path) > 8_000_000
    for _ in range(2):  # the second time it is of this version
        store = SqliteStore(path)
        assert size(path) < 200_000
        for session, id_ in ids.items():
            found = store.listed_for(Owner("address:A", session_of(session)))
            assert [one.job.id for one in found] == [id_]
        waiting = [store.get(id_) for id_ in ids.values()]
        served = store.snapshot([record for record in waiting if record is not None], ()).served
        assert sorted(served.values()) == [*(100.0 + number for number in range(20)), 119.0]
        store.close()


def test_an_older_versions_users_are_found_whatever_they_are_called(path: Path) -> None:
    names = ["ann", "a" * 5000, "sha256:ann", "ä" * 256]
    connection = make_old(path, SECOND, 2)
    with connection:
        for name in names:
            one = job()
            connection.execute(
                "INSERT INTO jobs (id, line, person, session, first, kept, state, created, job) "
                "VALUES (?, ?, ?, '', 0, 'visit', 'queued', 1.0, ?)",
                (one.id, LINE, f"user:{name}", one.model_dump_json()),
            )
            connection.execute("INSERT INTO served VALUES (?, '', 5.0)", (f"user:{name}",))
    connection.close()
    store = SqliteStore(path)
    for name in names:
        (record,) = store.listed_for(Owner(person_of(name)))
        assert store.snapshot([record], ()).served[record.owner.person] == 5.0
    store.close()


def test_names_that_a_bad_disk_has_changed_keep_no_older_file_from_being_opened(path: Path) -> None:
    old_file(path, 3)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE jobs SET session = CAST(x'ff00fe' AS TEXT) WHERE place = 1")
        connection.execute("UPDATE jobs SET session = x'ff', person = x'fe' WHERE place = 2")
        connection.execute("UPDATE jobs SET person = CAST(x'757365723aff' AS TEXT) WHERE place = 3")
        connection.execute("UPDATE served SET person = x'ff', session = 7 WHERE at = 100.0")
    connection.close()
    store = SqliteStore(path)
    assert len(store.ended()) == 3
    store.close()


OPENS = """
import resource, sys
from pathlib import Path
from jobs.store.sqlite import SqliteStore

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size,) * 2)
store = SqliteStore(path)
print(len(store.ended()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="bounds a file's size as POSIX does")
def test_an_older_file_that_there_is_no_room_to_rewrite_is_used_as_it_is(path: Path) -> None:
    """A bound on a file's size stands in for the full disk."""
    connection = make_old(path, SECOND, 2)
    with connection:
        for _ in range(100):
            one = job(prompt="a" * 9000)
            connection.execute(
                "INSERT INTO jobs (id, line, person, session, first, kept, state, created, ended, job) "
                "VALUES (?, ?, 'address:A', '', 0, 'visit', 'stopped', 1.0, 2.0, ?)",
                (one.id, LINE, one.model_dump_json()),
            )
    connection.close()
    environment = {**os.environ, "SQLITE_TMPDIR": str(path.parent)}
    done = subprocess.run(
        [sys.executable, "-c", OPENS, str(path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "100\n"
    assert "can't be made smaller yet" in done.stderr
    store = SqliteStore(path)  # there is room now
    store.forget([one.job for one in store.ended()])
    store.tidy()
    assert size(path) < 120_000
    store.close()


def test_an_id_that_names_no_file_keeps_nothing_from_being_kept(
    store: SqliteStore, ended_jobs: EndedJobs
) -> None:
    first, second = stopped(store, 2)
    store._database.run("UPDATE jobs SET id = '../../etc/passwd' WHERE id = ?", first)
    ended_jobs.delete_old(10**9, HOUR, ())
    assert [one.job for one in store.ended()] == ["../../etc/passwd", second]
    ended_jobs.delete_old(1, HOUR, ())
    assert store.ended() == []


def test_the_benchmark_says_what_strangers_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "CLAIMS", 3)
    coming = strangers.Strangers(tmp_path, "a fox")
    coming.come(5)
    left = coming.left()
    assert left.size < 500_000
    assert len(left.claims) == 3
    coming.keep(seconds=0)
    assert coming.store.ended() == []
    coming.store.close()
