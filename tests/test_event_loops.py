"""What the tests watch of event loops (inside/event_loops.py) is seen where it happens, and only there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.store.retention import size
from jobs.store.sqlite import SqliteStore
from tests.conftest import ROOT
from tests.inside.event_loops import watch
from tests.inside.sitecustomize import EVENT_LOOPS


def test_sqlite_and_files_are_seen_on_an_event_loop_and_not_in_its_threads(tmp_path: Path) -> None:
    found: list[str] = []
    end = watch(found.append)
    store = SqliteStore(tmp_path / "jobs.sqlite")

    async def in_threads() -> None:
        await asyncio.to_thread(store.lines)
        await asyncio.to_thread(size, tmp_path)

    async def on_the_loop() -> None:
        store.lines()
        size(tmp_path)
        list(tmp_path.iterdir())  # a test's own: no server does that

    asyncio.run(in_threads())
    assert found == []
    asyncio.run(on_the_loop())
    seen = {words.partition(" ")[0] for words in found}
    assert {"SQLite", "stat", "os.listdir"} <= seen
    assert all("jobs/store/" in words for words in found)
    end()
    before = len(found)
    asyncio.run(on_the_loop())
    assert len(found) == before
    store.close()


WAITS = """
import asyncio
from pathlib import Path
from jobs.store.retention import size

async def waits():
    size(Path.cwd())

asyncio.run(waits())
"""


@pytest.mark.parametrize("waits", [True, False])
def test_a_process_that_the_tests_start_says_so_in_a_file(tmp_path: Path, waits: bool) -> None:
    file = tmp_path / "event-loops"
    script = (
        WAITS
        if waits
        else WAITS.replace("    size(Path.cwd())", "    await asyncio.to_thread(size, Path.cwd())")
    )
    environment = {**os.environ, EVENT_LOOPS: str(file)}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)
    assert file.exists() == waits
    assert not waits or "retention.py" in file.read_text()
