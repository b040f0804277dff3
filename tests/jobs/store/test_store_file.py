"""Jobs are found again after whatever ends the process and whatever became of their file. A kill -9 stands in
for a power cut, which can't be tried here: it doesn't test what a disk syncs."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.scheduling.fair_share import Fair
from jobs.store.database import VERSION
from jobs.store.sqlite import SqliteStore
from pipeline.errors import DiskFull, StoreError
from tests.conftest import ROOT
from tests.jobs.store.old_store import FIRST, make_old
from tests.jobs.store.stored_jobs import ROOMY, add, claim
from tests.jobs.waiting import LINE, Clock, job, owner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.sqlite"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SqliteStore]:
    opened = SqliteStore(path, clock)
    yield opened
    opened.close()


def test_after_a_restart_everything_is_as_before(store: SqliteStore, path: Path, clock: Clock) -> None:
    for person in "ABCDE":
        add(store, person, "large" if person == "C" else "turbo")
    finished, _ = claim(store), claim(store)
    store.finish(finished.job.id, 1, "failed", "Words.", "code")
    store.claim(LINE, Fair(), ["turbo"])

    def everything(of: SqliteStore) -> list[object]:
        return [of.waiting(LINE), of.running(), of.ended(), of.snapshot(of.waiting(LINE), ())]

    before = everything(store)
    assert any(one.overtaken for one in store.waiting(LINE))
    store.close()
    reopened = SqliteStore(path, clock)
    assert everything(reopened) == before
    reopened.close()


ADDS = """
import sys
from pathlib import Path
from jobs.store.sqlite import SqliteStore
from tests.jobs.store.old_store import FIRST, make_old
from tests.jobs.waiting import job, owner

store = SqliteStore(Path(sys.argv[1]))
while True:
    print(store.add(job(prompt="a" * 2000), "cuda", owner(), "page", 10**6, 10**6).job.id, flush=True)
"""


def test_a_kill_in_the_middle_of_adding_loses_nothing_that_was_promised(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ADDS, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    promised = [process.stdout.readline() for _ in range(300)]
    process.kill()
    promised += process.stdout.readlines()
    process.wait()
    store = SqliteStore(path)
    found = {one.job.id for one in store.waiting(LINE)}
    # A last line may be half of one: it was being said.
    assert {line.strip() for line in promised if line.endswith("\n")} <= found
    assert claim(store).attempt == 1
    store.close()


FILLS = """
import resource, sys
from pathlib import Path
from jobs.store.sqlite import SqliteStore
from pipeline.errors import DiskFull
from tests.jobs.store.old_store import FIRST, make_old
from tests.jobs.waiting import job, owner

store = SqliteStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for _ in range(1000):
        print(store.add(job(prompt="a" * 2000), "cuda", owner(), "page", 10**6, 10**6).job.id, flush=True)
except DiskFull as error:
    print(len(store.waiting("cuda")), error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="bounds a file's size as POSIX does")
def test_a_full_disk_is_said_in_words_and_what_was_written_before_stays(path: Path) -> None:
    """A bound on a file's size stands in for the full disk: SQLite fails to write in the same call."""
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *promised, last = done.stdout.splitlines()
    assert promised
    assert last.startswith(f"{len(promised)} The server's disk is full or fails")
    assert "STEPWISE_KEEP_GB" in last
    store = SqliteStore(path)
    assert [one.job.id for one in store.waiting(LINE)] == promised
    store.close()


def test_sqlites_own_words_for_a_full_disk_are_ours_too(store: SqliteStore) -> None:
    store._database.run("PRAGMA max_page_count = 1")  # SQLite raises what it does on a full disk
    with pytest.raises(DiskFull, match="STEPWISE_DATA"):
        for _ in range(1000):
            store.add(job(prompt="a" * 9000), LINE, owner(), "page", *ROOMY)


@pytest.mark.parametrize("damage", ["not a database", "half of it", "a page of zeros"])
def test_a_damaged_file_is_refused_in_words_and_kept(path: Path, damage: str) -> None:
    store = SqliteStore(path)
    for _ in range(300):
        add(store)
    store.close()
    whole = path.read_bytes()
    broken = {
        "not a database": b"<html>" * 1000,
        "half of it": whole[: len(whole) // 2],
        "a page of zeros": whole[:4096] + bytes(4096) + whole[8192:],
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(StoreError, match=r"is damaged\. Move its folder away, or set STEPWISE_DATA") as error:
        SqliteStore(path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == broken


def test_a_file_of_the_first_version_is_opened_with_its_jobs(path: Path) -> None:
    with make_old(path, FIRST, 1) as connection:
        old = job()
        connection.execute(
            "INSERT INTO jobs (id, line, person, session, first, kept, state, created, attempt, job) "
            "VALUES (?, ?, 'user:ann', '', 0, 'always', 'running', 1.0, 2, ?)",
            (old.id, LINE, old.model_dump_json()),
        )
    connection.close()
    for _ in range(2):  # the second time it is of this version
        store = SqliteStore(path)
        (record,) = store.running()
        assert (record.attempt, record.lost) == (2, 0)
        store.close()
    store = SqliteStore(path)
    assert store.requeue(record.job.id, 2, lost=True)
    assert [one.lost for one in store.waiting(LINE)] == [1]
    store.close()


def test_a_newer_versions_file_is_refused_in_words_and_kept(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=rf"newer Stepwise \(version {VERSION + 1}\).* STEPWISE_DATA"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_in_words_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE jobs (theirs)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not by Stepwise"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_folder_that_can_not_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="STEPWISE_DATA"):
        SqliteStore(tmp_path / "file" / "jobs.sqlite")


def test_a_closed_store_says_so_without_saying_where_it_was(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    with pytest.raises(StoreError, match=r"jobs\.sqlite can't be used .*closed") as error:
        store.get(job().id)
    assert str(path.parent) not in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="asks for a mode as POSIX has it")
def test_nobody_else_on_the_machine_reads_prompts(store: SqliteStore, path: Path) -> None:
    add(store)
    files = list(path.parent.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
