"""The file that jobs are written down in: its tables, its transactions, and its errors in words. What is
asked of it stands in sqlite.py."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.data_dir.contents import BESIDE
from jobs.data_dir.private_files import NotOurs, check_file, close_file, make_file, make_folder
from jobs.store.owner_names import person_of, session_of
from pipeline.errors import DiskFull, StoreError

log = logging.getLogger("stepwise")

VERSION = 4
"""Of the tables below, in the file's own `user_version`."""
CHANGES = {
    1: "ALTER TABLE jobs ADD COLUMN lost INTEGER NOT NULL DEFAULT 0",
    2: """
UPDATE jobs SET session = bounded_session(CAST(session AS BLOB)) WHERE typeof(session) = 'text';
UPDATE jobs SET person = bounded_person(CAST(person AS BLOB)) WHERE typeof(person) = 'text';
UPDATE OR REPLACE served SET session = bounded_session(CAST(session AS BLOB)) WHERE typeof(session) = 'text';
UPDATE OR REPLACE served SET person = bounded_person(CAST(person AS BLOB)) WHERE typeof(person) = 'text';
DROP INDEX IF EXISTS ended;
CREATE INDEX ended ON jobs (ended, place, id) WHERE ended IS NOT NULL;
CREATE INDEX drawn ON jobs (line, ended, started) WHERE state = 'finished';
CREATE INDEX owned_by ON jobs (person, place);
CREATE INDEX served_of ON served (person, at);
""",
    3: """
ALTER TABLE jobs RENAME COLUMN kept TO lifetime;
UPDATE jobs SET lifetime = CASE lifetime WHEN 'always' THEN 'detached' WHEN 'visit' THEN 'page'
    WHEN 'call' THEN 'attached' ELSE lifetime END;
""",
}
"""What makes the tables of each version those of the next. 2: names of any length became bounded ones. 3:
what becomes of a job that nobody follows is called by other words."""
TABLES = """
CREATE TABLE jobs (
    place INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again, whatever is forgotten
    id TEXT NOT NULL UNIQUE,
    line TEXT NOT NULL,
    person TEXT NOT NULL,
    session TEXT NOT NULL,
    first INTEGER NOT NULL,
    lifetime TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    kills INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    stop INTEGER NOT NULL DEFAULT 0,
    overtaken INTEGER NOT NULL DEFAULT 0,
    since REAL,
    started REAL,
    ended REAL,
    error TEXT,
    code TEXT,
    job TEXT NOT NULL
);
CREATE INDEX waiting ON jobs (line, place) WHERE state = 'queued';
CREATE INDEX waiting_of ON jobs (person) WHERE state = 'queued';
CREATE INDEX running ON jobs (place) WHERE state = 'running';
CREATE INDEX ended ON jobs (ended, place, id) WHERE ended IS NOT NULL;
CREATE INDEX drawn ON jobs (line, ended, started) WHERE state = 'finished';
CREATE INDEX owned ON jobs (person, session, place);
CREATE INDEX owned_by ON jobs (person, place);
CREATE TABLE served (
    person TEXT NOT NULL,
    session TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (person, session)
) WITHOUT ROWID;
CREATE INDEX served_at ON served (at);
CREATE INDEX served_of ON served (person, at);
"""
LOCKED_SECONDS = 30.0
"""How long a call waits for another process that holds the file."""
LOG_BYTES = 4 * 2**20
"""Of the write-ahead log's file, once what is in it was copied: as long as it gets before SQLite copies it,
by itself, at 1,000 pages. What one long transaction needed besides is given back to the disk."""
PAGES_AT_ONCE = 1000
"""Free pages that are given back to the disk while others wait."""
INCREMENTAL = 2
"""Of `auto_vacuum`: the file can give its free pages back."""
_REMEDY = "Move its folder away, or set STEPWISE_DATA to another, and start again; it was left as it is."


class Database:
    """One connection to one file, behind a lock: safe to use from any thread. SQLite keeps two more files
    beside it (-wal, -shm). The disk must be a local one: the write-ahead log shares memory between processes.
    """

    def __init__(self, path: Path) -> None:
        """
        Args:
            path: the file; it and its folder are made where they are missing.

        Raises:
            StoreError: the file is damaged, of a newer version, or can't be opened; it stays as it is.
        """
        self._lock = threading.RLock()
        self._path = path
        # In full for the owner who starts the program; later, visitors read it too.
        self._called = str(path)
        with self._explained():
            make_folder(path.parent)
            make_file(path)  # prompts, and ids that let whoever knows them stop a job
            for end in BESIDE:
                close_file(path.with_name(path.name + end))
            self._connection = sqlite3.connect(
                path, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False
            )
            # One text that a bad disk has changed mustn't keep all others from being read.
            self._connection.text_factory = lambda text: text.decode("utf-8", "replace")
        try:
            self._open()
            with self._explained():  # in a folder that isn't ours alone, another may have made one just now
                for end in BESIDE:
                    check_file(path.with_name(path.name + end))
        except BaseException:
            self._connection.close()
            raise
        self._called = path.name

    @contextlib.contextmanager
    def writing(self, durable: bool = False) -> Iterator[None]:
        """All of the block is done, or nothing of it. What was written survives a kill of the process, and
        where it is durable a power cut.

        Raises:
            DiskFull, StoreError.
        """
        # FULL syncs the log at every commit; NORMAL leaves that to whatever is next durable.
        with self._transaction("IMMEDIATE", "FULL" if durable else "NORMAL"):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """All that the block reads is of one moment.

        Raises:
            StoreError.
        """
        with self._transaction("DEFERRED", "NORMAL"):
            yield

    def run(self, statement: str, *values: Any) -> int:
        """How many rows it changed."""
        return self._connection.execute(statement, values).rowcount

    def rows(self, query: str, *values: Any) -> list[tuple]:
        return self._connection.execute(query, values).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        """Of its first row the first column."""
        return self._connection.execute(query, values).fetchone()[0]

    def size(self) -> int:
        """Bytes that it takes on disk, with its log."""
        files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def free(self) -> int:
        """Bytes of the file that hold nothing, for `shrink` to give back. Within a transaction."""
        return self.value("PRAGMA freelist_count") * self.value("PRAGMA page_size")

    def shrink(self) -> None:
        """Gives back to the disk what is free in the file, and the log. Others get in between.

        Raises:
            DiskFull, StoreError.
        """
        while True:
            with self.writing():
                before = self.free()
                self.rows(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")
                if self.free() in (0, before):
                    break
        with self._lock, self._explained():
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                ((held, *_),) = self.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {round(LOCKED_SECONDS * 1000)}")
        if held:
            log.warning("Another process reads %s, so its log grows until that ends.", self._called)

    def close(self) -> None:
        """Copies the log into the file and syncs it."""
        with self._lock, self._explained():
            self._connection.close()

    def _open(self) -> None:
        with self.reading():
            version = self.value("PRAGMA user_version")
            strange = version == 0 and self.value("SELECT count(*) FROM sqlite_master")
            if version > VERSION or strange:
                written = "not by Stepwise" if strange else f"by a newer Stepwise (version {version})"
                raise StoreError(
                    f"{self._called} was written {written}; this one reads version {VERSION}. {_REMEDY}"
                )
            # Damage is found now, not by whoever asks for the job in it.
            if self.value("PRAGMA quick_check(1)") != "ok":
                raise sqlite3.DatabaseError("malformed")
        with self._explained():
            self._connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")  # of a file that is new
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        with self.writing(durable=True):
            version = self.value("PRAGMA user_version")
            if version:
                self._change(version)
            else:
                self._run_all(TABLES)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")
        if self.value("PRAGMA auto_vacuum") != INCREMENTAL:
            self._rewrite()

    def _change(self, version: int) -> None:
        """Makes the tables of this version those of the last."""
        functions = {"bounded_session": session_of, "bounded_person": _bounded_person}
        for name, function in functions.items():
            self._connection.create_function(name, 1, function, deterministic=True)
        for number in range(version, VERSION):
            self._run_all(CHANGES[number])

    def _run_all(self, statements: str) -> None:
        for statement in statements.split(";"):
            self._connection.execute(statement)

    def _rewrite(self) -> None:
        """Makes a file of an older version one that can shrink, as small as what is in it. Where there is no
        room for that, which is as much again, the next start tries."""
        try:
            with self._lock, self._explained():
                self._connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
                self._connection.execute("VACUUM")
            self.shrink()
        except (DiskFull, StoreError) as error:
            log.warning("%s can't be made smaller yet: %s", self._called, error)

    @contextlib.contextmanager
    def _transaction(self, kind: str, synchronous: str) -> Iterator[None]:
        with self._lock, self._explained():
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite ends some by itself, as where the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns SQLite's and the disk's errors into ours. By their words: codes came with Python 3.11."""
        try:
            yield
        except NotOurs as error:
            raise StoreError(f"{error}. {_REMEDY}") from error
        except (sqlite3.Error, OSError) as error:
            words = str(error)
            if "disk is full" in words or "disk I/O error" in words or "No space left" in words:
                raise DiskFull(
                    "The server's disk is full or fails, so nothing can be written down. Its owner: free "
                    "space in the folder of STEPWISE_DATA, or set STEPWISE_KEEP_GB lower."
                ) from error
            if "not a database" in words or "malformed" in words:
                raise StoreError(f"{self._called} is damaged. {_REMEDY}") from error
            if "locked" in words:
                raise StoreError(
                    f"Another process has held {self._called} for {LOCKED_SECONDS:g} s: end it and try "
                    "again, or set STEPWISE_DATA to another folder."
                ) from error
            raise StoreError(
                f"{self._called} can't be used ({words}): let this user write there, or set STEPWISE_DATA to "
                "another folder."
            ) from error


def _bounded_person(person: bytes) -> str:
    """A person as `Owner` has it, of what an older version wrote."""
    text = person.decode("utf-8", "replace")
    return person_of(text.removeprefix("user:")) if text.startswith("user:") else text
