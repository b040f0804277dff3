"""What requests bring along stays within bounds of size, for each person and for all, and of age; what a job
names, and what was just used, stays. The files are real; the clock is the test's."""

from __future__ import annotations

import math
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.store.inputs import store as module
from jobs.store.inputs.files import Key, key_of
from jobs.store.inputs.store import Inputs
from jobs.store.models import Owner
from pipeline.errors import Busy, InputTooLarge
from tests.jobs.store.inputs.sent import ANN, BEN, BLOCK, HOUR, Slowly, bounds, content, digests, put
from tests.jobs.waiting import Clock, owner


def test_whether_there_is_room_does_not_tell_what_another_has(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second owner of the same bytes is refused as the owner of others would be."""
    bounds(monkeypatch, most=2, each=2)
    put(inputs, b"a picture")
    put(inputs, b"another")
    for there in (b"a picture", b"a third"):
        with pytest.raises(Busy, match=r"take all of the 131,072 bytes"):
            put(inputs, there, BEN)


def test_what_is_too_large_is_refused_before_it_is_read_whole(inputs: Inputs, tmp_path: Path) -> None:
    source = Slowly(10**12)
    with pytest.raises(InputTooLarge, match=r"larger than 5,000,000 bytes"):
        inputs.put(source, 5_000_000, ANN)
    assert source.taken <= 5_000_000 + module.CHUNK_BYTES
    assert list(tmp_path.iterdir()) == []
    assert inputs.put(Slowly(5_000_000), 5_000_000, ANN) in digests(tmp_path)


def test_what_is_larger_than_one_person_may_have_is_too_large(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, most=9, each=3)
    with pytest.raises(InputTooLarge, match=r"larger than 196,608 bytes"):
        put(inputs, bytes(3 * BLOCK + 1))
    put(inputs, bytes(3 * BLOCK))


def test_a_sender_who_breaks_off_leaves_nothing(inputs: Inputs, tmp_path: Path) -> None:
    def broken() -> None:
        if source.taken > 2**20:
            raise ConnectionResetError("gone")

    source = Slowly(10**9, broken)
    with pytest.raises(ConnectionResetError, match="gone"):
        inputs.put(source, 10**9, ANN)
    assert list(tmp_path.iterdir()) == []
    assert not inputs._bytes


def test_ones_own_oldest_makes_room_for_ones_newest_and_nobody_elses_goes(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    bounds(monkeypatch, most=100, each=2)
    others = put(inputs, b"ben's", BEN)
    first, second = put(inputs, b"first"), put(inputs, b"second")
    clock.now += HOUR
    assert content(inputs, first) == b"first"  # used later than the second
    clock.now += HOUR
    third = put(inputs, b"third")
    found = [content(inputs, digest) for digest in (first, second, third)]
    assert found == [b"first", None, b"third"]
    assert content(inputs, others, BEN) == b"ben's"


def test_what_was_just_sent_is_not_deleted_for_others_who_are_told_when_to_come_back(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    bounds(monkeypatch, most=2, each=2)
    first = put(inputs, b"first")
    clock.now += 60
    second = put(inputs, b"second")
    with pytest.raises(Busy) as busy:
        put(inputs, b"ben's", BEN)
    assert busy.value.retry_after == module.RESERVED_SECONDS - 60
    clock.now += busy.value.retry_after + 1
    put(inputs, b"ben's", BEN)
    assert [content(inputs, digest) for digest in (first, second)] == [None, b"second"]


def test_many_small_ones_count_as_much_as_a_few_larger_ones(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bounds(monkeypatch, most=100, each=5)
    for number in range(5):
        put(inputs, b"%d" % number)
    with pytest.raises(Busy, match=r"The files that you sent take all of the 327,680 bytes.*Try again in"):
        put(inputs, b"one more")
    assert len(digests(tmp_path)) == 5


def test_one_person_has_no_more_room_for_having_many_sessions(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, most=100, each=3)
    for number in range(3):
        put(inputs, b"a picture", owner("192.0.2.1", f"{number}"))
    with pytest.raises(Busy):
        put(inputs, b"a picture", owner("192.0.2.1", "another"))


def test_an_input_goes_when_nobody_has_used_it_for_its_time_and_the_next_look_is_foretold(
    inputs: Inputs, tmp_path: Path, clock: Clock
) -> None:
    assert inputs.expire() == math.inf
    first = put(inputs, b"first")
    clock.now += 10 * HOUR
    second = put(inputs, b"second")
    assert inputs.expire() == 14 * HOUR
    assert content(inputs, first) == b"first"
    clock.now += 20 * HOUR
    assert inputs.expire() == 4 * HOUR
    clock.now += 4 * HOUR + 1
    assert inputs.expire() == math.inf
    assert digests(tmp_path) == set()
    assert content(inputs, second) is None


def test_what_a_waiting_or_running_job_names_stays_whatever_its_age_and_whoever_needs_room(
    inputs: Inputs, used: set[tuple[str, Owner]], monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    bounds(monkeypatch, most=2, each=2)
    digest = put(inputs, b"a picture")
    put(inputs, b"a picture", BEN)
    used.add((digest, ANN))
    clock.now += 100 * HOUR
    inputs.expire()
    assert content(inputs, digest, BEN) is None  # no job of his names it: he sees what he would see anyway
    clock.now += HOUR
    put(inputs, b"ben's", BEN)
    with pytest.raises(Busy):
        put(inputs, bytes(2 * BLOCK), BEN)
    assert content(inputs, digest, ANN) == b"a picture"
    used.clear()
    clock.now += 25 * HOUR  # after the job's end its time begins
    inputs.expire()
    assert content(inputs, digest, ANN) is None


def test_a_clock_that_was_ahead_keeps_nothing_for_ever(tmp_path: Path, clock: Clock) -> None:
    ahead = Clock(clock.now + 1000 * HOUR)
    digest = put(Inputs(tmp_path, lambda: (), ahead), b"a picture")
    inputs = Inputs(tmp_path, lambda: (), clock)
    clock.now += 25 * HOUR
    inputs.expire()
    assert content(inputs, digest) is None


def test_a_file_that_cannot_be_deleted_is_not_said_to_be_gone_and_still_counts(
    inputs: Inputs,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bounds(monkeypatch, most=1, each=1)
    digest = put(inputs, b"a picture")
    (tmp_path / digest).unlink()
    (tmp_path / digest).mkdir()  # as unlink refuses a folder, also to an account that may do all
    clock.now += 25 * HOUR
    with pytest.raises(Busy):
        put(inputs, b"another")
    inputs.expire()
    assert "can't be deleted" in caplog.text
    assert list(inputs._bytes.values()) == [BLOCK]


STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 2), st.integers(0, 4), st.integers(0, 3 * BLOCK)),
    st.tuples(st.just("open"), st.integers(0, 2), st.integers(0, 9)),
    st.tuples(st.just("job"), st.integers(0, 9)),
    st.tuples(st.just("end")),
    st.tuples(st.just("pass"), st.sampled_from((1.0, 60.0, 700.0, HOUR, 20 * HOUR, 25 * HOUR))),
    st.tuples(st.just("expire")),
    st.tuples(st.just("restart")),
)
PEOPLE = (ANN, owner("192.0.2.1", "one"), owner("192.0.2.1", "two"))


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEP, max_size=40))
def test_whatever_happens_the_bounds_hold_and_what_is_named_or_was_just_used_is_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    folder, clock, named = tmp_path_factory.mktemp("inputs"), Clock(), set()
    known: dict[tuple[str, Owner], tuple[bytes, float]] = {}  # what was put, and its last use
    with pytest.MonkeyPatch.context() as monkeypatch:
        bounds(monkeypatch, most=6, each=4)
        inputs = Inputs(folder, lambda: named, clock)
        for step, *values in steps:
            keys = sorted(known, key=str)
            if step == "put":
                whose, letter, size = values
                sent = bytes([letter]) * size
                try:
                    known[put(inputs, sent, PEOPLE[whose]), PEOPLE[whose]] = (sent, clock.now)
                except Busy as busy:
                    assert busy.retry_after is None or busy.retry_after > 0
            elif step == "open" and keys:
                digest = keys[values[1] % len(keys)][0]
                if (found := content(inputs, digest, PEOPLE[values[0]])) is not None:
                    assert found == known[digest, PEOPLE[values[0]]][0]
                    known[digest, PEOPLE[values[0]]] = (found, clock.now)
            elif step == "job" and keys:
                key = keys[values[0] % len(keys)]
                if (found := content(inputs, *key)) is not None:
                    known[key] = (found, clock.now)
                    named.add(key)
            elif step == "end":
                named.clear()
            elif step == "pass":
                clock.now += values[0]
            elif step == "restart":
                inputs = Inputs(folder, lambda: named, clock)
            elif step == "expire":
                rest = inputs.expire()
                known.update({key: (known[key][0], clock.now) for key in named})
                oldest = [used + module.KEEP_SECONDS - clock.now for _, used in known.values()]
                assert rest == math.inf or rest >= min((one for one in oldest if one >= 0), default=0) - 1e-3
                for key, (_, used) in list(known.items()):
                    if clock.now - used > module.KEEP_SECONDS:
                        assert key not in named and content(inputs, *key) is None
                        del known[key]
            # The bounds, by what is on the disk.
            files = {path.name: path.stat().st_size for path in folder.iterdir()}
            contents = {name: size for name, size in files.items() if len(name) == 64}
            owned = [name.split(".") for name in files if "." in name]
            assert {digest for digest, *_ in owned} == contents.keys()
            assert sum(contents.values()) <= 6 * BLOCK
            for person in {person for _, person, _ in owned}:
                theirs = [digest for digest, one, _ in owned if one == person]
                assert sum(max(BLOCK, contents[digest]) for digest in theirs) <= 4 * BLOCK
            # What must be there, is: looked at without using it.
            there = {(digest, Key(*key)) for digest, *key in owned}
            for (digest, whose), (_, used) in known.items():
                if (digest, whose) in named or clock.now - used <= module.RESERVED_SECONDS:
                    assert (digest, key_of(whose)) in there
        for (digest, whose), (sent, _) in known.items():
            assert content(inputs, digest, whose) in (sent, None)


def test_many_at_once_keep_the_bounds_and_get_what_they_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads of four people send, read and expire the same few contents."""
    bounds(monkeypatch, most=12, each=5)
    monkeypatch.setattr(module, "RESERVED_SECONDS", 0.001)
    inputs, until, wrong = Inputs(tmp_path, lambda: ()), time.monotonic() + 3, []
    most_seen = 0

    def run(number: int) -> None:
        nonlocal most_seen
        chosen, whose = random.Random(number), owner(f"192.0.2.{number % 4}")
        try:
            while time.monotonic() < until:
                sent = bytes([chosen.randrange(6)]) * chosen.randrange(1, 3 * BLOCK, 1000)
                try:
                    digest = put(inputs, sent, whose)
                except Busy:
                    continue
                most_seen = max(most_seen, inputs._bytes.total())
                if content(inputs, digest, whose) not in (sent, None):  # another may have needed its room
                    wrong.append(digest)
                if chosen.random() < 0.1:
                    inputs.expire()
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 0 < most_seen <= 12 * BLOCK
    assert Inputs(tmp_path, lambda: ())._bytes == inputs._bytes
    assert not list(tmp_path.glob("upload-*"))
