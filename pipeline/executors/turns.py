"""Turns at an executor: so many jobs at a time, the others in their order; and all of them ended at once."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from pipeline.run import Cancel


class Turns:
    """Safe to use from any thread."""

    def __init__(self, at_once: float = math.inf) -> None:
        """at_once: how many have their turn at a time."""
        self._at_once = at_once
        self._cancels: list[Cancel] = []
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def entered(self, cancel: Cancel) -> Iterator[None]:
        """Within the block, a job has a place here: `wait` waits for its turn, which lasts to the end of the
        block, and `close` cancels it."""
        with self._changed:
            self._cancels.append(cancel)
        try:
            yield
        finally:
            with self._changed:
                self._cancels.remove(cancel)
                self._changed.notify_all()

    def wait(self, cancel: Cancel) -> None:
        """Waits until fewer than `at_once` of those that entered before are left.

        Raises:
            Stopped: cancelled before its turn.
        """
        with cancel.calling(self._wake), self._changed:
            self._changed.wait_for(lambda: cancel.is_set or self._cancels.index(cancel) < self._at_once)
        cancel.raise_if_cancelled()

    def close(self) -> None:
        """Cancels all of them; returns at once."""
        with self._changed:
            cancels = list(self._cancels)
        for cancel in cancels:
            cancel.set()

    def join(self, seconds: float) -> float:
        """Wait until no job is left, so many seconds at most; return how many of these seconds are left."""
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: not self._cancels, max(0.0, seconds))
        return max(0.0, until - time.monotonic())

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
