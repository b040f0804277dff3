"""Whose the open MCP sessions are, and which has to go when somebody opens one more. Knows neither HTTP nor
the SDK: how a session is begun and ended stands in transport.py.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

IDLE = 30 * 60
"""Seconds without any request after which a session is ended; its client then has to begin another. A client
that keeps its stream of notifications open, as the SDKs do, is never idle."""
MOST_SESSIONS = 1000
"""Open at once. A session takes 60 KB until it ends, and most clients that are killed or closed never end
theirs."""
SHARE = 100
"""Of these, one person's. An assistant opens one per window, and an office or a school is one address: a
hundred windows at once fit into it, 6 MB, and ten such addresses into the whole."""
AGAIN = 60
"""Seconds after which it is worth trying again where there was no room."""


class NoRoom(Exception):
    """No session can be opened now. status: HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(eq=False)
class Session:
    """One session, from the request that opens it on."""

    person: str
    used: float
    """When its last request ended, by the clock of `Sessions`."""
    id: str = ""
    """Empty while it is being opened."""
    called: bool = False
    """Whether anything was asked in it since it began."""
    requests: int = 0
    """Messages of its client that are being answered; a call is one until its answer is sent."""
    streams: int = 0
    """Streams of notifications that are open."""
    calls: set[str] = field(default_factory=set)
    """The ids of the requests that are being answered."""


class Sessions:
    """All sessions that are open. A person is a logged-in user, a key or an address, as text."""

    def __init__(
        self, most: int, share: int, idle: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            most: at once. share: of them, one person's.
            idle: seconds, see IDLE.
        """
        self._most, self._share, self._idle, self._clock = most, share, idle, clock
        self._all: set[Session] = set()
        self._by_id: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._all)

    def find(self, session_id: str, person: str) -> Session | None:
        """Return the session with this id, or None if there is none or it is somebody else's."""
        session = self._by_id.get(session_id)
        if session is None or session.person != person or self._is_over(session):
            return None
        return session

    def open(self, person: str) -> tuple[Session, Session | None]:
        """Return one more session of this person, and the one that has to be ended for it, or None. Of
        whoever has their share it is their own idlest; where all places are taken, the idlest of whoever has
        most. One in which nothing was asked yet counts as idler than any other. One with a call in progress
        is never ended; one with its stream open only for somebody who has fewer.

        Raises:
            NoRoom: all that could go are in use.
        """
        for session in [one for one in self._all if self._is_over(one)]:
            self.forget(session)
        held = Counter(session.person for session in self._all)
        gone = None
        if held[person] >= self._share:
            own = [one for one in self._all if one.person == person and not one.requests and not one.streams]
            if not own:
                raise NoRoom(
                    429,
                    f"You have {held[person]:,} sessions open, as many as one may have, and each has a call "
                    "in progress or its stream open. End one, or try again in a minute.",
                )
            gone = min(own, key=_idlest)
        elif len(self._all) >= self._most:
            free = [session for session in self._all if not session.requests]
            if not free:
                raise NoRoom(
                    503,
                    f"All {self._most:,} sessions that this server keeps have a call in progress. Try again "
                    "in a minute.",
                )
            held[person] += 1  # with the new one: of equals, who opens it gives up their own
            gone = min(free, key=lambda session: (-held[session.person], *_idlest(session)))
        if gone is not None:
            self.forget(gone)
        session = Session(person, self._clock(), requests=1)
        self._all.add(session)
        return session, gone

    def opened(self, session: Session, session_id: str) -> None:
        """Note that the session has begun: its client learns this id now."""
        session.id = session_id
        self._by_id[session_id] = session

    def forget(self, session: Session) -> None:
        """Note that the session has ended, or never began."""
        self._all.discard(session)
        self._by_id.pop(session.id, None)

    @contextlib.contextmanager
    def answering(self, session: Session, call: str | None = None) -> Iterator[None]:
        """Count a message as being answered within this context. call: the id of a request that asks for
        something."""
        session.requests += 1
        if call is not None:
            session.called = True
            session.calls.add(call)
        try:
            yield
        finally:
            if call is not None:
                session.calls.discard(call)
            self.answered(session)

    def answered(self, session: Session) -> None:
        """Count one message fewer as being answered: after `open`, the one that opened it."""
        session.requests -= 1
        session.used = self._clock()

    @contextlib.contextmanager
    def streaming(self, session: Session) -> Iterator[None]:
        """Count a stream of notifications as open within this context."""
        session.streams += 1
        try:
            yield
        finally:
            session.streams -= 1
            session.used = self._clock()

    def _is_over(self, session: Session) -> bool:
        """Whether it has been idle for so long that the SDK has ended it."""
        return not session.requests and not session.streams and self._clock() - session.used > self._idle


def _idlest(session: Session) -> tuple[bool, bool, float]:
    """Return what sessions are ordered by: the smaller, the sooner it may go."""
    return session.streams > 0, session.called, session.used
