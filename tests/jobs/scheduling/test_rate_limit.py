"""So many drawings in so long for each person, and words for who wants more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from jobs.scheduling import rate_limit
from jobs.scheduling.rate_limit import RateLimit
from pipeline.errors import RateLimited, SettingError


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock, which stands still between."""
    began, ahead = time.time(), [0.0]
    monkeypatch.setattr(time, "time", lambda: began + ahead[0])

    def move(seconds: float) -> None:
        ahead[0] += seconds

    return move


def test_the_third_of_two_a_minute_is_refused_until_the_first_is_a_minute_old(
    later: Callable[[float], None],
) -> None:
    limit = RateLimit("2/minute")
    limit.hit("ann")
    later(40)
    limit.hit("ann")
    with pytest.raises(RateLimited, match="at most 2 a minute") as refusal:
        limit.hit("ann")
    assert refusal.value.retry_after is not None
    assert 15 < refusal.value.retry_after <= 21
    later(21)
    limit.hit("ann")  # a moving window: the second still counts
    with pytest.raises(RateLimited):
        limit.hit("ann")


def test_everyone_has_a_limit_of_their_own() -> None:
    limit = RateLimit("1/hour")
    for person in ("user:ann", "address:8.8.8.8", "address:8.8.4.4"):
        limit.hit(person)
    with pytest.raises(RateLimited):
        limit.hit("user:ann")


def test_of_several_rates_each_holds(later: Callable[[float], None]) -> None:
    limit = RateLimit("2/minute, 3/hour")
    for _ in range(3):
        limit.hit("ann")
        later(61)
    with pytest.raises(RateLimited, match="3 an hour") as refusal:
        limit.hit("ann")
    assert (refusal.value.retry_after or 0) > 3000


def test_a_refusal_doesnt_count(later: Callable[[float], None]) -> None:
    limit = RateLimit("1/minute")
    limit.hit("ann")
    for _ in range(5):
        with pytest.raises(RateLimited):
            limit.hit("ann")
    later(61)
    limit.hit("ann")


def test_an_empty_setting_is_no_limit() -> None:
    limit = RateLimit(" ")
    for _ in range(1000):
        limit.hit("ann")


def test_of_a_hundred_at_once_no_more_than_the_limit_pass() -> None:
    limit, passed = RateLimit("10/hour"), []

    def ask() -> None:
        try:
            limit.hit("ann")
            passed.append(1)
        except RateLimited:
            pass

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 10


def test_persons_who_havent_come_for_a_while_are_forgotten(
    later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = RateLimit("5/minute")
    for number in range(200):
        limit.hit(f"address {number}")
    monkeypatch.setattr(rate_limit, "FORGET", 0.0)
    later(120)
    while len(limit._storage.events) > 5:  # the library's thread takes out what is past
        limit.hit("ann") if limit._storage.events else None
        later(120)
    assert len(limit._storage.events) <= 5


@pytest.mark.parametrize("text", ["30", "often", "0/minute", "30/fortnight", "-1/minute"])
def test_a_setting_that_is_no_rate_stops_the_start_in_words(text: str) -> None:
    with pytest.raises(SettingError, match="STEPWISE_RATE is no rate"):
        RateLimit(text)
