"""The line in front of one device: first come, first served, one at a time.

Whose turn it is keeps the device until it leaves the `with` block: that is, until its work has really
ended, whatever its client did meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol

from pipeline.errors import Busy


class Waiting(Protocol):
    """What stands in a line: told how many are ahead, and asked whether it still wants its turn."""

    def check(self) -> None:
        """Raises Stopped to leave the line."""

    def update(self, *, position: int) -> None:
        """position: how many are ahead."""


class Line:
    """One device's line. `room`: how many may wait at most, the one whose turn it is not counted."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._waiting: list[Waiting] = []
        self._moved = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, waiting: Waiting) -> None:
        """Takes the last place.

        Raises:
            Busy: no room.
        """
        with self._moved:
            if len(self._waiting) > self._room:
                raise Busy(
                    f"{self._room} drawings are waiting already, as many as this server takes. "
                    "Try again in a minute."
                )
            self._waiting.append(waiting)

    @contextlib.contextmanager
    def turn(self, waiting: Waiting) -> Iterator[None]:
        """Waits for the front, and leaves the line at the end of the block. `join` comes first."""
        try:
            position = -1
            with self._moved:
                while (ahead := self._waiting.index(waiting)) > 0:
                    waiting.check()
                    if ahead != position:
                        waiting.update(position=ahead)
                    position = ahead
                    self._moved.wait()
            waiting.check()
            yield
        finally:
            with self._moved:
                self._waiting.remove(waiting)
                self._moved.notify_all()

    def wake(self) -> None:
        """Makes everyone in the line check whether they still want their turn."""
        with self._moved:
            self._moved.notify_all()
