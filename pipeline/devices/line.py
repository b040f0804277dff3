"""The line in front of one device: first come, first served, one at a time (or as many as it serves at once).

Whose turn it is keeps the device until it leaves the `with` block: that is, until its work has really
ended, whatever its client did meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol

from pipeline.errors import Busy
from pipeline.events import Phase


class Waiting(Protocol):
    """What stands in a line: told how many are ahead, and asked whether it still wants its turn."""

    @property
    def preloads(self) -> str:
        """The name of the model that it only makes ready; empty for a drawing."""

    @property
    def eta(self) -> float | None:
        """Seconds until its turn ends, once it has begun; None while unknown."""

    def check(self) -> None:
        """Raises Stopped to leave the line."""

    def update(self, *, phase: Phase, position: int, preload: str) -> None:
        """phase: queued. position: how many must leave before its turn comes. preload: the name of the model
        that one of these makes ready; empty where all are drawings."""


class Line:
    """One device's line. `room`: how many may wait at most, those whose turn it is not counted. `width`: how
    many have their turn at once."""

    def __init__(self, room: int, width: int = 1) -> None:
        self._room, self.width = room, width
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
            if len(self._waiting) >= self._room + self.width:
                raise Busy(
                    f"{self._room} drawings are waiting already, as many as this server takes.",
                    self._waiting[0].eta,
                )
            self._waiting.append(waiting)

    def leave(self, waiting: Waiting) -> None:
        """Gives its place up."""
        with self._moved:
            self._waiting.remove(waiting)
            self._moved.notify_all()

    @contextlib.contextmanager
    def turn(self, waiting: Waiting) -> Iterator[None]:
        """Waits for a place at the front, and leaves the line at the end of the block. `join` comes first."""
        try:
            position = -1
            with self._moved:
                while (ahead := self._waiting.index(waiting) - self.width + 1) > 0:
                    waiting.check()
                    if ahead != position:
                        before = self._waiting[: self._waiting.index(waiting)]
                        preload = next((one.preloads for one in before if one.preloads), "")
                        waiting.update(phase="queued", position=ahead, preload=preload)
                    position = ahead
                    self._moved.wait()
            waiting.check()
            yield
        finally:
            self.leave(waiting)

    @contextlib.contextmanager
    def away(self, waiting: Waiting) -> Iterator[None]:
        """Leaves the line within the block, for something that needs no device, and takes the last place
        after it, full or not. `join` comes first; an exception leaves it outside."""
        self.leave(waiting)
        yield
        with self._moved:
            self._waiting.append(waiting)

    def wake(self) -> None:
        """Makes everyone in the line check whether they still want their turn."""
        with self._moved:
            self._moved.notify_all()
