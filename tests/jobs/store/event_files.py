"""What the tests of the event log share: a file of events, written and read."""

from __future__ import annotations

from pathlib import Path

from jobs.store.event_log import LogReader, LogWriter
from pipeline.events import Event


def written(path: Path, events: list[Event]) -> list[int]:
    """Writes a file, and gives its length after each event."""
    with LogWriter(path) as log:
        return [(log.append(event), path.stat().st_size)[1] for event in events]


def read(path: Path) -> list[Event]:
    with LogReader(path) as reader:
        return reader.read()
