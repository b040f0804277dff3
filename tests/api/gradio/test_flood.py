"""Sessions that come and never read, and callers that join and cancel at once, through the real server; the
thousands of them are `bench.flood`'s, the bounds of what is kept test_gradio_queue.py's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.flood import flood_the_app
from bench.support.table import ROOT
from tests.support import programs


def test_a_drawing_is_dispatched_after_a_flood_of_sessions_and_cancelled_joins(tmp_path: Path) -> None:
    # Fewer than the 100 calls that one person may have open.
    found = flood_the_app(90, 50, tmp_path, start=programs.start)
    assert found.joined == {200: 90}
    assert found.cancelled == {200: 50}
    assert found.died is None
    assert found.dispatched.startswith("finished")


def test_the_garbage_collector_looks_at_what_came_since_the_start_and_not_at_the_libraries() -> None:
    code = "import app, gc; gc.disable(); app.exclude_libraries_from_gc();"
    code += "print(gc.get_freeze_count(), len(gc.get_objects()), int(gc.isenabled()))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    frozen, seen, collects = map(int, ended.stdout.split())
    assert frozen > 100 * seen
    assert collects
