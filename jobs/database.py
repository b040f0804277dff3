"""The file that jobs are written down in: its tables, its transactions, and its errors in words. What is
asked of it stands in store.py."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.private import NotOurs, check_file, close_file, make_file, make_folder
from pipeline.errors import DiskFull, StoreError

VERSION = 2
"""Of the tables below, in the file's own `user_version`."""
CHANGES = {1: "ALTER TABLE jobs ADD COLUMN lost INTEGER NOT NULL DEFAULT 0"}
"""What makes the tables of each version those of the next."""
TABLES = """
CREATE TABLE jobs (
    place INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again, whatever is forgotten
    id TEXT NOT NULL UNIQUE,
    line TEXT NOT NULL,
    person TEXT NOT NULL,
    session TEXT NOT NULL,
    first INTEGER NOT NULL,
    kept TEXT NOT NULL,
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
CREATE INDEX ended ON jobs (ended, place) WHERE ended IS NOT NULL;
CREATE INDEX owned ON jobs (person, session, place);
CREATE TABLE served (
    person TEXT NOT NULL,
    session TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (person, session)
) WITHOUT ROWID;
CREATE INDEX served_at ON served (at);
"""
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite appends to the file's name for those that it keeps beside it, with the modes of the file."""
LOCKED_SECONDS = 30.0
"""How long a call waits for another process that holds the file."""
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
            self._connection.execute("PRAGMA journal_mode = WAL")
        with self.writing(durable=True):
            version = self.value("PRAGMA user_version")
            made = [CHANGES[number] for number in range(version, VERSION)] if version else TABLES.split(";")
            for statement in made:
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {VERSION}")

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
