"""What is kept from one server to the next can be read whatever wrote it: another version of Stepwise, or a
disk that fails. What this one can't make sense of fails in words, its row stays, and all the rest goes on."""

from __future__ import annotations

import json
import logging
import sqlite3
import struct
import uuid
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from jobs.scheduling.fair_share import Fair
from jobs.store import job_json
from jobs.store.event_log import last_event
from jobs.store.job_json import JOB_VERSION, to_json
from jobs.store.log_names import log_path
from jobs.store.models import describe
from jobs.store.sqlite import SqliteStore
from pipeline.engine import Engine
from pipeline.events import Event
from tests.jobs.events import JOB
from tests.jobs.queueing import ANN, Make
from tests.jobs.queueing import job as asked
from tests.jobs.waiting import LINE, Clock, job, owner

ROOMY = (100, 100)


def change(path: Path, id_: str, **columns: Any) -> None:
    """Writes these into a job's row, as another version, or a disk, would have left it."""
    with sqlite3.connect(path) as connection:
        for column, value in columns.items():
            connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, id_))
    connection.close()


def settings(**changes: Any) -> str:
    """A job's settings with these changed; those that are ... are left out."""
    values = job().model_dump(mode="json") | changes
    return json.dumps({name: value for name, value in values.items() if value is not ...})


UNREADABLE = {
    "a setting that isn't known": ({"job": settings(lora="ghibli", sampler="dpm")}, "lora, sampler"),
    "a newer version": (
        {"job": settings(version=JOB_VERSION + 1)},
        f"version {JOB_VERSION + 1} (the newest that it knows is {JOB_VERSION})",
    ),
    "a version in words": ({"job": settings(version="first")}, 'version "first"'),
    "a setting that is missing": ({"job": settings(steps=...)}, "steps"),
    "a setting of another kind": ({"job": settings(prompt=["a", "fox"], width="wide")}, "prompt, width"),
    "no picture": ({"job": settings(images=0)}, "images"),
    "not a number": ({"job": settings(guidance=float("nan"))}, "guidance"),
    "a number without end": ({"job": settings(guidance=float("inf"))}, "guidance"),
    "too many digits": ({"job": '{"seed": ' + "9" * 5000 + "}"}, "its settings"),
    "no JSON": ({"job": "prompt: a fox"}, "its settings"),
    "a list": ({"job": "[]"}, "its settings"),
    "deep": ({"job": "[" * 100_000}, "its settings"),
    "cut": ({"job": settings()[:40]}, "its settings"),
    "bytes that are no text": ({"job": b"\xff\xfe{}"}, "its settings"),
    "a state that isn't known": ({"state": "paused"}, 'state "paused"'),
    "a keeping that isn't known": ({"lifetime": "week"}, 'lifetime "week"'),
    "an attempt that can't be counted on": ({"attempt": 2**63 - 1}, "attempt"),
    "an attempt below none": ({"attempt": -1}, "attempt"),
    "an attempt in words": ({"attempt": "first"}, "attempt"),
    "kills in words": ({"kills": "many"}, "kills"),
    "a person of bytes": ({"person": b"\xff"}, "person"),
}


@pytest.mark.parametrize("columns, words", UNREADABLE.values(), ids=UNREADABLE)
def test_a_job_that_can_not_be_read_fails_in_words_its_row_stays_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, columns: dict[str, Any], words: str
) -> None:
    path = tmp_path / "jobs.sqlite"
    store = SqliteStore(path)
    first, bad, last = (store.add(job(), LINE, owner("A", "s"), "page", *ROOMY) for _ in range(3))
    store.close()
    change(path, bad.job.id, **columns)

    clock = Clock()
    store = SqliteStore(path, clock)
    found = store.get(bad.job.id)
    assert found is not None
    assert (found.state, found.code, found.ended) == ("failed", "store_error", clock.now)
    assert f"this one can't read {words}" in str(found.error)
    assert "Draw it again" in str(found.error)
    assert bad.job.id[:8] in caplog.text
    assert [one.job.id for one in store.waiting(LINE)] == [first.job.id, last.job.id]
    assert [one.job for one in store.ended()] == [bad.job.id]
    assert json.loads(json.dumps(describe(found), allow_nan=False))["state"] == "failed"
    for expected in (first, last):
        claimed = store.claim(LINE, Fair(running_each=9))
        assert claimed is not None
        assert claimed.job == expected.job
    if "job" in columns:
        ((kept,),) = store._database.rows("SELECT CAST(job AS BLOB) FROM jobs WHERE id = ?", bad.job.id)
        text = columns["job"]
        assert kept == (text if isinstance(text, bytes) else text.encode())
    store.close()
    caplog.clear()
    SqliteStore(path).close()  # once is enough
    assert not caplog.records


def test_a_setting_that_is_not_known_and_empty_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = SqliteStore(path)
    record = store.add(job(), LINE, owner(), "page", *ROOMY)
    store.close()
    values = record.job.model_dump(mode="json") | {"lora": None, "masks": []}
    change(path, record.job.id, job=json.dumps(values))
    store = SqliteStore(path)
    assert store.waiting(LINE) == [record]
    store.close()


def test_a_job_has_a_version_and_one_from_before_there_were_versions_is_read(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = SqliteStore(path)
    record = store.add(job(), LINE, owner(), "page", *ROOMY)
    ((text,),) = store._database.rows("SELECT job FROM jobs")
    store.close()
    values = json.loads(text)
    assert values.pop("version") == JOB_VERSION
    change(path, record.job.id, job=json.dumps(values))
    store = SqliteStore(path)
    assert store.waiting(LINE) == [record]
    store.close()


def test_an_older_version_of_a_job_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "jobs.sqlite"
    store = SqliteStore(path)
    record = store.add(job(), LINE, owner(), "page", *ROOMY)
    damaged = store.add(job(), LINE, owner(), "page", *ROOMY)
    store.close()
    older = {"job": settings(version=JOB_VERSION, steps=..., step_count=4)}
    change(path, record.job.id, **older)
    change(path, damaged.job.id, job=settings(version=JOB_VERSION, steps=...))

    def renamed(values: dict[str, Any]) -> dict[str, Any]:
        return {"steps": values.pop("step_count"), **values}

    monkeypatch.setattr(job_json, "MIGRATIONS", (*job_json.MIGRATIONS, renamed))
    monkeypatch.setattr(job_json, "JOB_VERSION", JOB_VERSION + 1)
    store = SqliteStore(path)
    (waits,) = store.waiting(LINE)
    assert (waits.job.id, waits.job.steps) == (record.job.id, 4)
    failed = store.get(damaged.job.id)
    assert failed is not None
    assert f"can't read version {JOB_VERSION}, steps of it" in str(failed.error)
    store.close()


def test_an_id_that_names_no_file_and_times_that_are_none_are_read(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    store = SqliteStore(path)
    bad, good = (store.add(job(), LINE, owner(), "page", *ROOMY) for _ in range(2))
    store.close()
    change(path, good.job.id, created="yesterday", since=float("inf"), overtaken=-3)
    change(path, bad.job.id, id="../../etc/passwd")
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO served VALUES ('address:A', 's', 'yesterday')")
        connection.execute("INSERT INTO served VALUES ('address:B', 's', 9e999)")
    connection.close()
    store = SqliteStore(path)
    (waits,) = store.waiting(LINE)
    assert (waits.job, waits.created, waits.since, waits.overtaken) == (good.job, 0.0, None, 0)
    (ended,) = store.ended()
    failed = store.get(ended.job)
    assert failed is not None
    assert failed.attempt == 0
    assert store.snapshot(store.waiting(LINE), ()).served == {}
    store.close()


def test_a_server_starts_over_rows_that_it_can_not_read_and_draws_the_others(
    tiny: Engine, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    make().close()
    database = tmp_path / "data" / "jobs.sqlite"
    store = SqliteStore(database)
    waits, runs, ended, good = (
        store.add(asked(tiny), "cpu", ANN, "detached", *ROOMY).job.id for _ in range(4)
    )
    for id_, columns in (
        (waits, {"job": settings(lora="ghibli")}),
        (runs, {"state": "running", "attempt": 1, "job": "{}"}),
        (ended, {"state": "finished", "ended": 9e9, "attempt": 1, "job": "{}"}),
    ):
        change(database, id_, **columns)
    store.close()
    queue = make()
    following = queue.find(good)
    assert following is not None
    assert following.result().phase == "finished"
    for id_, words in ((waits, "can't read lora"), (runs, "can't read"), (ended, "no longer there")):
        found = queue.find(id_)
        assert found is not None
        last = found.latest
        assert last.last
        assert words in str(last.error)
    assert {one.job.id for one in queue.listed_for(ANN)} == {waits, runs, ended, good}


# Events.


def frame(*pictures: bytes, text: bytes = b"", **fields: Any) -> bytes:
    """A whole frame, of whatever it is said to hold."""
    text = text or json.dumps(fields).encode()
    lengths = struct.pack(">II", sum(map(len, pictures)), len(text))
    return b"".join((lengths, struct.pack(">I", crc32(text, crc32(lengths))), *pictures, text))


GARBAGE = {
    "no JSON": frame(text=b"phase: finished"),
    "no object": frame(text=b"[1, 2]"),
    "no text": frame(text=b"\xff"),
    "deep": frame(text=b"[" * 100_000),
    "too many digits": frame(text=b'{"step": ' + b"9" * 5000 + b"}"),
    "a phase that isn't known": frame(phase="paused"),
    "a phase of another kind": frame(phase=["finished"]),
    "a step in words": frame(step="two"),
    "a time without end": frame(seconds=float("inf")),
    "no number": frame(eta=float("nan")),
    "warnings of another kind": frame(warnings=5),
    "a picture that is a path": frame(images=["a.png"]),
    "pictures of another kind": frame(previews=7),
    "a picture outside the file": frame(images=[[0, 10**18, 0]]),
    "a picture before it": frame(images=[[-5, 5, 0]]),
    "an error of another kind": frame(phase="failed", error={"en": "no"}),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_an_event_that_can_not_be_read_is_passed_over_for_the_one_before(
    tmp_path: Path, garbage: bytes
) -> None:
    path = log_path(tmp_path, JOB.id, 1)
    path.write_bytes(frame(job=JOB.model_dump(mode="json"), phase="denoising", step=2) + garbage)
    assert last_event(path) == Event(JOB, "denoising", step=2)
    path.write_bytes(garbage)
    assert last_event(path) is None


def test_events_of_a_job_of_a_version_that_is_not_known_are_passed_over(tmp_path: Path) -> None:
    path = log_path(tmp_path, JOB.id, 1)
    for written, read in (
        (to_json(JOB), True),
        (JOB.model_dump(mode="json"), True),
        (to_json(JOB) | {"version": JOB_VERSION + 1}, False),
    ):
        path.write_bytes(frame(job=written, phase="denoising", step=2))
        assert last_event(path) == (Event(JOB, "denoising", step=2) if read else None)


def test_every_field_of_an_event_has_a_kind_that_is_checked(tmp_path: Path) -> None:
    path = log_path(tmp_path, JOB.id, 1)
    for field in Event.__dataclass_fields__:
        if field != "job":
            path.write_bytes(frame(job=JOB.model_dump(mode="json"), **{field: {"an": uuid.uuid4().hex}}))
            assert last_event(path) is None, field
