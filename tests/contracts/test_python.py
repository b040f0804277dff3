"""What is used of Python's own library beside what it promises is still there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import deque
from typing import Any


def test_what_was_registered_for_the_end_can_be_run() -> None:
    code = "import atexit, os; atexit.register(print, 'ended'); atexit._run_exitfuncs(); os._exit(0)"
    said = subprocess.run([sys.executable, "-u", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "ended\n"


def test_a_queues_storage_can_be_replaced() -> None:
    class Doubled(asyncio.Queue[Any]):
        def _init(self, maxsize: int) -> None:
            self._queue = self.kept = deque[Any]()

        def _put(self, item: Any) -> None:
            self.kept.extend((item, item))

        def _get(self) -> Any:
            return self.kept.popleft()

    async def both() -> list[Any]:
        queue = Doubled()
        queue.put_nowait(1)
        assert (queue.qsize(), queue.empty()) == (2, False)
        return [await queue.get(), await queue.get()]

    assert asyncio.run(both()) == [1, 1]
