"""How many times a person may do something within a while: a moving window for each. What they do, and who a
person is, is for the caller to say.
"""

from __future__ import annotations

import threading
import time

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from pipeline.errors import RateLimited, SettingError, quoted

FORGET = 60.0
"""Seconds between two times that persons are forgotten whose window is empty; `limits` (5.8) never does."""


class RateLimit:
    """So many in so long, for each person. Safe to use from any thread."""

    def __init__(self, text: str, setting: str = "STEPWISE_RATE", doing: str = "drawings") -> None:
        """
        Args:
            text: as "30/minute" or "5/minute, 50/hour": every one of them holds. Empty: no limit.
            setting: where it was written, for the complaint. doing: what is counted, for the refusal.

        Raises:
            SettingError: it is no rate.
        """
        self._rates = rates(text, setting)
        self._doing = doing
        self._storage = MemoryStorage()
        self._window = MovingWindowRateLimiter(self._storage)
        self._forgot = time.monotonic()
        self._lock = threading.Lock()

    def hit(self, person: str) -> None:
        """Counts one more of this person's.

        Raises:
            RateLimited: there are too many already; this one isn't counted.
        """
        with self._lock:
            self._allow(person)
            self._count(person)

    def allow(self, person: str) -> None:
        """As `check`, without counting."""
        with self._lock:
            self._allow(person)

    def count(self, person: str) -> None:
        """Counts one of this person's, whether or not it is allowed."""
        with self._lock:
            self._count(person)

    def _allow(self, person: str) -> None:
        for rate in self._rates:
            if not self._window.test(rate, person):
                reset = self._window.get_window_stats(rate, person).reset_time
                raise RateLimited(self._words(rate), max(1.0, reset - time.time()))

    def _count(self, person: str) -> None:
        self._forget()
        for rate in self._rates:
            self._window.hit(rate, person)

    def _words(self, rate: RateLimitItem) -> str:
        return f"Too many {self._doing} from here: at most {words(rate)}."

    def _forget(self) -> None:
        if time.monotonic() - self._forgot >= FORGET:
            self._forgot = time.monotonic()
            for key, entries in list(self._storage.events.items()):
                if not entries:  # its own thread has taken out what is past
                    self._storage.clear(key)


def rates(text: str, setting: str) -> list[RateLimitItem]:
    """A setting's rates.

    Raises:
        SettingError: it holds none that can be read, and isn't empty.
    """
    if not text.strip():
        return []
    try:
        found = parse_many(text)
    except ValueError:
        found = []
    if not found or any(rate.amount < 1 for rate in found):
        raise SettingError(
            f"{setting} is no rate: got {quoted(text)}, where 30/minute is one, or 5/minute, 100/hour, or "
            "nothing for no limit."
        )
    return found


def words(rate: RateLimitItem) -> str:
    """A rate as one says it: "30 a minute", "5 in 10 minutes"."""
    unit = rate.GRANULARITY.name
    one = "an hour" if unit == "hour" else f"a {unit}"
    return f"{rate.amount} {one}" if rate.multiples == 1 else f"{rate.amount} in {rate.multiples} {unit}s"
