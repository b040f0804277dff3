"""Sessions that come and never read, and callers that join and cancel at once, through the real server; the
thousands of them are `bench.flood`'s, the bounds of what is kept test_gradio_queue.py's."""

from __future__ import annotations

from pathlib import Path

from bench.flood import flood_the_app


def test_a_drawing_is_dispatched_after_a_flood_of_sessions_and_cancelled_joins(tmp_path: Path) -> None:
    found = flood_the_app(150, 50, tmp_path)
    assert found.joined == {200: 150}
    assert found.cancelled == {200: 50}
    assert found.died is None
    assert found.dispatched.startswith("finished")
