"""Databases as older versions of Stepwise made them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

SECOND = """
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
"""The tables of version 2."""
FIRST = SECOND.replace("    lost INTEGER NOT NULL DEFAULT 0,\n", "")
"""The tables of version 1."""


def make_old(path: Path, tables: str, version: int) -> sqlite3.Connection:
    """An empty database of this version, open: what is written to it is committed by `with`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(f"PRAGMA journal_mode = WAL; {tables} PRAGMA user_version = {version};")
    return connection
