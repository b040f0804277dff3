"""What befalls the writer of an attempt's events, a full disk, or a kill: what was written before is read.
Files, processes, signals and the full disk (a limit of the system) are real."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.store.event_log import LogReader, LogWriter, last_event
from jobs.store.log_names import log_path
from pipeline.events import Event
from tests.jobs.events import JOB, life
from tests.jobs.store.event_files import read
from tests.support.tiny import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return log_path(tmp_path, JOB.id, 1)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows past so many bytes: the system refuses with an OSError, as it does where
    the disk is full, after a part was written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_os_error_that_leaves_nothing_half_written(path: Path) -> None:
    events = life(picture=10_000)
    with LogWriter(path) as log:
        for event in events[:4]:
            log.append(event)
        size = path.stat().st_size
        with full_disk(size + 1000), pytest.raises(OSError, match="File too large"):
            log.append(events[4])
        assert path.stat().st_size == size
        assert read(path) == events[:4]
        for event in events[5:]:  # somebody made room
            log.append(event)
    assert read(path) == [*events[:4], *events[5:]]


WRITE = """
import sys, time
from pathlib import Path
from jobs.store.event_log import LogWriter
from tests.jobs.events import life

with LogWriter(Path(sys.argv[1])) as log:
    for _ in range(int(sys.argv[2])):
        for event in life(picture=20_000):
            log.append(event)
"""
"""As a worker process: writes the same life again and again, as fast as it can."""


def writer(path: Path, lives: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITE, str(path), str(lives)], cwd=ROOT)


def test_a_reader_follows_a_writer_in_another_process(path: Path) -> None:
    with LogReader(path) as reader, writer(path, 50) as process:
        events: list[Event] = []
        while process.poll() is None:
            events += reader.read()
        events += reader.read()
    assert process.returncode == 0
    assert events == life(picture=20_000) * 50


def test_a_writer_killed_in_the_midst_leaves_whole_events(path: Path) -> None:
    one = life(picture=20_000)
    with writer(path, 1_000_000) as process:
        deadline = time.monotonic() + 600
        while not path.exists() or path.stat().st_size < 3_000_000:
            assert time.monotonic() < deadline, "the writer writes nothing"
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    events = read(path)
    assert len(events) > len(one)
    assert events == (one * (len(events) // len(one) + 1))[: len(events)]
    assert last_event(path) == events[-1]
