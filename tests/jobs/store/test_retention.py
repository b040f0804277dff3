"""What was drawn stays on disk within a size and an age, least recently used first, and what is busy stays.
The files are real; their age is set as the system keeps it."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.store.event_log import LogReader, LogWriter, last_event
from jobs.store.log_names import log_path, name_of
from jobs.store.retention import delete_old_files, size
from tests.jobs.events import JOB, life

IDS = {name_of(job): job for job in (str(uuid.UUID(int=number)) for number in range(1, 5))}
A, B, C, D = IDS  # as files are called
BYTES, HOUR = 10**9, 3600.0


def file(folder: Path, job: str, age: float, attempt: int = 1, length: int = 1000) -> Path:
    """An event file last used so many seconds ago."""
    path = log_path(folder, IDS[job], attempt)
    path.write_bytes(bytes(length))
    used = time.time() - age
    os.utime(path, (used, used))
    return path


def there(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_within_both_bounds_everything_stays(tmp_path: Path) -> None:
    for job in (A, B):
        file(tmp_path, job, 10)
    assert delete_old_files(tmp_path, 2000, HOUR, ()) == []
    assert len(there(tmp_path)) == 2


def test_past_the_size_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    for job, age in ((A, 20), (B, 40), (C, 10), (D, 30)):
        file(tmp_path, job, age)
    assert delete_old_files(tmp_path, 2500, HOUR, ()) == [B, D]
    assert there(tmp_path) == {f"{A}.1.events", f"{C}.1.events"}
    assert size(tmp_path) == 2000


def test_past_the_age_a_job_goes_however_small_it_is(tmp_path: Path) -> None:
    file(tmp_path, A, 2 * HOUR, length=1)
    file(tmp_path, B, HOUR / 2)
    assert delete_old_files(tmp_path, BYTES, HOUR, ()) == [A]
    assert there(tmp_path) == {f"{B}.1.events"}


def test_a_busy_job_stays_whatever_its_size_and_age_and_counts(tmp_path: Path) -> None:
    file(tmp_path, A, 3 * HOUR, length=5000)
    file(tmp_path, B, 2 * HOUR)
    file(tmp_path, C, 1)
    assert delete_old_files(tmp_path, 5500, HOUR, [A]) == [B, C]
    assert there(tmp_path) == {f"{A}.1.events"}
    assert delete_old_files(tmp_path, 0, 0, [A]) == []


def test_the_files_of_a_jobs_attempts_go_and_stay_together(tmp_path: Path) -> None:
    file(tmp_path, A, 50)
    file(tmp_path, A, 10, attempt=2)
    file(tmp_path, B, 30)
    file(tmp_path, B, 20, attempt=11)
    assert delete_old_files(tmp_path, 2000, HOUR, ()) == [B]
    assert there(tmp_path) == {f"{A}.1.events", f"{A}.2.events"}


def test_files_of_other_names_stay_and_do_not_count(tmp_path: Path) -> None:
    others = ["pace.json", "jobs.sqlite", f"{A}.1.events.tmp", f"{A}.events", "apple.1.events"]
    for name in others:
        (tmp_path / name).write_bytes(bytes(1000))
    (tmp_path / f"{B}.1.events").symlink_to(tmp_path / "pace.json")
    file(tmp_path, C, 10)
    assert size(tmp_path) == 1000
    assert delete_old_files(tmp_path, 0, 0, ()) == [C]
    assert there(tmp_path) == {*others, f"{B}.1.events"}


def test_a_job_that_is_looked_at_again_stays_longer(tmp_path: Path) -> None:
    for job in (A, B, C):
        with LogWriter(log_path(tmp_path, IDS[job], 1)) as log:
            for event in life(JOB.model_copy(update={"id": IDS[job]})):
                log.append(event)
        used = time.time() - HOUR
        os.utime(log_path(tmp_path, IDS[job], 1), (used, used))
    assert last_event(log_path(tmp_path, IDS[A], 1)) is not None
    with LogReader(log_path(tmp_path, IDS[C], 1)) as reader:
        assert reader.read()
    assert delete_old_files(tmp_path, BYTES, HOUR / 2, ()) == [B]


def test_an_old_job_goes_however_lately_it_was_looked_at_but_not_a_busy_one(tmp_path: Path) -> None:
    for job in (A, B, C):
        file(tmp_path, job, 1)
    long_ago = time.time() - 2 * HOUR
    assert delete_old_files(tmp_path, BYTES, HOUR, [C], {B: long_ago, C: long_ago}) == [B]
    assert there(tmp_path) == {f"{A}.1.events", f"{C}.1.events"}


@dataclass
class Records:
    """Those of a store: when each ended, and its bytes."""

    ended: dict[str, float]
    each: int
    forgotten: list[str] = field(default_factory=list)

    def forget(self, job: str) -> int:
        self.forgotten.append(job)
        return self.each

    def keep(self, folder: Path, most: int, seconds: float = HOUR, busy: Collection[str] = ()) -> list[str]:
        return delete_old_files(
            folder, most, seconds, busy, self.ended, self.each * len(self.ended), self.forget
        )


def ago(**seconds: float) -> dict[str, float]:
    """When jobs ended, by their letter."""
    names = dict(zip("ABCD", IDS, strict=True))
    return {names[letter]: time.time() - age for letter, age in seconds.items()}


def test_records_count_as_files_do_and_go_with_them(tmp_path: Path) -> None:
    file(tmp_path, A, 20)
    file(tmp_path, B, 40)
    records = Records(ago(A=20, B=40, C=30), each=500)
    assert records.keep(tmp_path, 3500) == []
    assert records.keep(tmp_path, 3499) == [B] == records.forgotten
    assert there(tmp_path) == {f"{A}.1.events"}


def test_a_record_without_files_goes_in_its_turn(tmp_path: Path) -> None:
    file(tmp_path, A, 20)
    records = Records(ago(A=20, B=40, C=10, D=30), each=500)
    assert records.keep(tmp_path, 2000) == [B, D] == records.forgotten
    assert Records(ago(A=20, C=2 * HOUR), each=1).keep(tmp_path, BYTES) == [C]


def test_what_the_records_take_beside_those_that_ended_can_not_be_had_back(tmp_path: Path) -> None:
    assert delete_old_files(tmp_path, 1000, HOUR, [B], ago(A=1, B=2), 5000, lambda _: 0) == [A]


def test_only_so_many_jobs_are_kept_however_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.store.retention.MOST_JOBS", 2)
    file(tmp_path, D, 5)
    records = Records(ago(A=20, B=40, C=10, D=30), each=1)
    assert records.keep(tmp_path, BYTES, busy=[B]) == [A, C] == records.forgotten


def test_who_reads_a_file_while_it_goes_reads_it_to_the_end(tmp_path: Path) -> None:
    path, events = log_path(tmp_path, JOB.id, 1), life()
    with LogWriter(path) as log, LogReader(path) as reader:
        log.append(events[0])
        assert reader.read() == events[:1]
        assert delete_old_files(tmp_path, 0, 0, ()) == [name_of(JOB.id)]
        for event in events[1:]:
            log.append(event)
        assert reader.read() == events[1:]
    assert there(tmp_path) == set()


def test_a_file_that_cannot_be_deleted_is_not_said_to_be_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_path(tmp_path, IDS[A], 1).mkdir()  # as unlink refuses a folder, also to an account that may do all
    file(tmp_path, B, 10)
    assert delete_old_files(tmp_path, 0, 0, ()) == [B]
    assert "can't be deleted" in caplog.text


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert size(tmp_path / "none") == 0
    assert delete_old_files(tmp_path / "none", 0, 0, ()) == []
