"""An attempt's events on disk: what is read is what was written, event by event, whoever reads, and whatever
became of the file."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.store.event_log import LogReader, LogWriter, last_event
from jobs.store.log_names import job_of, log_path, name_of, rename_old
from pipeline.engine import Engine
from pipeline.events import LAST_PHASES, Event
from pipeline.request import Job
from tests.jobs.events import JOB, life
from tests.jobs.store.event_files import read, written
from tests.support.tiny import SMALL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return log_path(tmp_path, JOB.id, 1)


pictures = st.binary(max_size=20)
words = st.text(max_size=10)
jobs = st.builds(
    Job,
    id=st.uuids().map(str),
    model=words,
    prompt=words,
    negative_prompt=words,
    width=st.integers(16, 2048),
    height=st.integers(16, 2048),
    steps=st.integers(1, 100),
    guidance=st.floats(0, 20),
    seed=st.integers(0, 2**53 - 1),
    images=st.integers(1, 4),
    warnings=st.lists(words, max_size=2).map(tuple),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events of one job whose pictures come from a few, so that neighbours share some and some come back."""
    job = draw(jobs)
    some = st.lists(st.sampled_from(draw(st.lists(pictures, min_size=1, max_size=4))), max_size=3).map(tuple)
    event = st.builds(
        Event,
        job=st.just(job),
        phase=st.sampled_from(["queued", "loading", "denoising", *LAST_PHASES]),
        step=st.integers(0, 100),
        position=st.integers(0, 9),
        preload=words,
        done=st.integers(0, 2**60),
        eta=st.none() | st.floats(0, 1e9),
        seconds=st.floats(0, 1e9),
        previews=some,
        images=some,
        warnings=st.lists(words, max_size=2).map(tuple),
        error=st.none() | words,
        code=st.none() | words,
        plan=st.none() | words,
        provider=st.none() | words,
    )
    return draw(st.lists(event, max_size=8))


@given(history=histories())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_is_what_was_written(path: Path, history: list[Event]) -> None:
    written(path, history)
    assert read(path) == history
    assert last_event(path) == (history[-1] if history else None)


@given(history=histories(), calls=st.lists(st.sampled_from(["read", "latest", ""]), min_size=8, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_reader_gets_each_event_once_while_they_are_written(
    path: Path, history: list[Event], calls: list[str]
) -> None:
    unread: list[Event] = []
    with LogWriter(path) as log, LogReader(path) as reader:
        for event, call in zip(history, calls):
            log.append(event)
            unread.append(event)
            if call == "read":
                assert reader.read() == unread
            if call == "latest":
                assert reader.latest() == event
            if call:
                assert reader.read() == []
                assert reader.latest() is None
                unread = []


def test_a_real_drawings_events_come_back_from_its_file(engine: Engine, tmp_path: Path) -> None:
    drawing = engine.start(engine.check(SMALL | {"images": 2}))
    events = list(drawing.events())
    path = log_path(tmp_path, drawing.job.id, 1)
    written(path, events)
    assert read(path) == events
    assert last_event(path) == drawing.latest


def test_a_picture_and_the_job_are_written_once(path: Path) -> None:
    events = life(picture=1000)
    written(path, events)
    content = path.read_bytes()
    for picture in {picture for event in events for picture in (*event.previews, *event.images)}:
        assert content.count(picture) == 1
    assert content.count("狐".encode()) == 1


SHORT = JOB.model_copy(update={"steps": 2})
"""For what is done at each byte: it has all that a longer file has, and reading it takes a fraction."""


def test_a_file_torn_at_any_byte_ends_with_its_last_whole_event(path: Path) -> None:
    events = life(SHORT, picture=4)
    ends = written(path, events)
    content = path.read_bytes()
    assert ends[-1] == len(content)
    for length in range(len(content), -1, -1):  # ever shorter, so that the disk has nothing to write
        os.truncate(path, length)
        whole = events[: sum(end <= length for end in ends)]
        assert read(path) == whole
        assert last_event(path) == (whole[-1] if whole else None)


@pytest.mark.parametrize("damage", [b"\0", b"\xff"])
def test_a_file_damaged_at_any_byte_shows_no_event_that_was_not_written(path: Path, damage: bytes) -> None:
    events = life(SHORT, picture=4)
    written(path, events)
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place in range(len(content)):
            os.pwrite(file.fileno(), damage, place)
            found = read(path)
            assert found == events[: len(found)]
            newest = last_event(path)
            assert newest is None or newest in events
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert path.read_bytes() == content


def test_zeros_behind_the_last_event_as_a_power_cut_leaves_them_are_no_event(path: Path) -> None:
    events = life()
    written(path, events)
    with path.open("ab") as file:
        file.write(bytes(5000))
    assert read(path) == events


def test_a_torn_event_is_there_once_it_is_whole(path: Path) -> None:
    events = life()
    ends = written(path, events)
    content = path.read_bytes()
    path.write_bytes(content[: ends[3] + 5])
    with LogReader(path) as reader:
        assert reader.read() == events[:4]
        with path.open("ab") as file:
            file.write(content[ends[3] + 5 :])
        assert reader.read() == events[4:]


def test_a_reader_may_come_before_the_file(path: Path) -> None:
    with LogReader(path) as reader:
        assert reader.read() == []
        assert reader.latest() is None
        written(path, life())
        assert reader.read() == life()
    assert last_event(path.with_name("missing")) is None


def test_a_reader_keeps_the_newest_events_pictures_only(path: Path) -> None:
    written(path, life())
    with LogReader(path) as reader:
        newest = reader.read()[-1]
        assert sorted(reader._pictures.values()) == sorted((*newest.previews, *newest.images))


def test_consecutive_events_share_their_pictures_in_memory(path: Path) -> None:
    written(path, life())
    *_, before, last = read(path)
    assert before.images
    assert all(one is other for one, other in zip(before.images, last.images))


def test_the_last_event_is_found_without_reading_the_pictures_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is read as it is; how much of it is counted on the way."""
    events = life(picture=100_000)
    written(path, events)
    counted: list[int] = []
    at = LogReader._at
    monkeypatch.setattr(LogReader, "_at", lambda self, *place: counted.append(place[1]) or at(self, *place))
    last = last_event(path)
    assert last == events[-1]
    assert sum(counted) < sum(map(len, (*last.previews, *last.images))) + 20_000
    assert path.stat().st_size > 2 * sum(counted)


def frame(**fields: object) -> bytes:
    """A frame without pictures, made by hand as the file's format has it."""
    text = json.dumps(fields).encode()
    lengths = struct.pack(">II", 0, len(text))
    return lengths + struct.pack(">I", crc32(text, crc32(lengths))) + text


def test_fields_of_another_version_are_passed_over_or_take_their_defaults(path: Path) -> None:
    job = JOB.model_dump(mode="json") | {"sampler": "dpm"}
    path.write_bytes(frame(job=job, phase="loading", mood="good") + frame(step=2))
    assert read(path) == [Event(JOB, "loading"), Event(JOB, step=2)]


def test_a_job_that_this_version_cannot_read_has_no_events(path: Path) -> None:
    path.write_bytes(frame(job={"id": JOB.id}, phase="loading"))
    assert read(path) == []
    assert last_event(path) is None


def test_an_error_that_quotes_an_unreadable_name_comes_back(path: Path) -> None:
    failed = Event(JOB, "failed", error="no such file: \udcff.safetensors")
    written(path, [failed])
    assert read(path) == [failed]


def test_a_new_attempts_file_replaces_one_of_that_name_and_its_readers_go_on(path: Path) -> None:
    written(path, life())
    with LogReader(path) as reader:
        old = reader.read()
        written(path, [Event(JOB, "failed")])
        assert old == life()
        assert reader.read() == []
    assert read(path) == [Event(JOB, "failed")]


def test_a_file_is_its_accounts_own(path: Path) -> None:
    written(path, life())
    assert path.stat().st_mode & 0o777 == 0o600


def test_reading_a_file_counts_as_its_use(path: Path) -> None:
    written(path, life())
    for use in (read, last_event):
        os.utime(path, (1000, 1000))
        use(path)
        assert path.stat().st_mtime > 1000


def test_a_files_name_says_its_job_without_the_id_and_no_other_id_names_a_file(tmp_path: Path) -> None:
    assert job_of(log_path(tmp_path, JOB.id, 12)) == name_of(JOB.id)
    assert JOB.id not in str(log_path(tmp_path, JOB.id, 12))
    assert job_of(tmp_path / "notes.events") is None
    for bad in ("../../secret", "", JOB.id.upper() + "A", JOB.id + "\n"):
        with pytest.raises(ValueError, match="no job has the id"):
            log_path(tmp_path, bad, 1)


def test_files_of_an_older_version_which_have_the_id_in_their_names_are_found_again(
    path: Path, tmp_path: Path
) -> None:
    written(tmp_path / f"{JOB.id}.1.events", life())
    (tmp_path / "notes.events").touch()
    rename_old(tmp_path)
    assert read(path) == life()
    assert {one.name for one in tmp_path.iterdir()} == {path.name, "notes.events"}


# What befalls a writer.
