"""What a client calls itself takes no more room than anyone else's name: a session of 900,000 characters is
kept as its hash, in the file of an older version too, and two of them stay two."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from starlette.requests import Request

from api.visitor import USER, owner_of
from tests.conftest import serve
from tests.jobs.queueing import until
from tests.support.rest import TIMEOUT, stream

LONG = 900_000
"""Characters: nearly as many as a request's body may have."""
LONGEST = 300
"""Characters that a name may take in the database, besides the job itself."""
JSON = {"content-type": "application/json"}
GONE = "\ud800"
"""Half of a surrogate pair: JSON can name it, UTF-8 can't."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identifiers")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """An app whose folder the tests look into."""
    with serve(folder, STEPWISE_MAX_WAITING_EACH="50", STEPWISE_GRACE="1") as address:
        yield address


def draw(job: str) -> list[Any]:
    """What `/generate` takes, for a small drawing."""
    return ["a red apple", "sketch", None, 128, 128, 1, None, 1, None, job]


def join(url: str, session: str) -> str:
    """Joins Gradio's queue for a drawing; gives the id of its job, empty where it was refused."""
    functions = httpx.get(f"{url}/config", timeout=TIMEOUT).json()["dependencies"]
    number = next(one["id"] for one in functions if one["api_name"] == "generate")
    job = str(uuid.uuid4())
    body = {"data": draw(job), "fn_index": number, "session_hash": session}
    answer = httpx.post(
        f"{url}/gradio_api/queue/join", content=json.dumps(body), headers=JSON, timeout=TIMEOUT
    )
    assert answer.status_code < 500, answer.text[:500]
    return job if answer.status_code == 200 else ""


def call_as(url: str, session: str, endpoint: str, data: list[Any]) -> tuple[str, Any] | None:
    """The last event and data of a call that names its session; None: it was refused."""
    body = json.dumps({"data": data, "session_hash": session})  # ASCII, whatever is in it
    answer = httpx.post(f"{url}/gradio_api/call/{endpoint}", content=body, headers=JSON, timeout=TIMEOUT)
    assert answer.status_code < 500, answer.text[:500]
    if answer.status_code != 200:
        return None
    *_, last = stream(url, endpoint, answer.json()["event_id"])
    return last


def ended(folder: Path, job: str) -> bool:
    return any(row["id"] == job and row["ended"] is not None for row in rows(folder, "jobs"))


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"file:{folder}/data/jobs.sqlite?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
    finally:
        connection.close()


def size(folder: Path) -> int:
    """Bytes of the database, its log included."""
    return sum(path.stat().st_size for path in (folder / "data").glob("jobs.sqlite*"))


def test_a_session_of_900_000_characters_takes_no_more_room_than_another(url: str, folder: Path) -> None:
    sessions = ["a" * LONG + end for end in ("1", "2")]
    jobs = [join(url, session) for session in sessions]
    for job in filter(None, jobs):
        until(lambda job=job: ended(folder, job))  # type: ignore[misc]
    for table in ("jobs", "served"):
        for row in rows(folder, table):
            long = [name for name, value in row.items() if name != "job" and len(str(value)) > LONGEST]
            assert long == [], table
    kept = [row["session"] for row in rows(folder, "jobs") if row["id"] in jobs]
    assert len(set(kept)) == len(kept)  # two sessions, however alike, where Gradio took them
    assert size(folder) < LONG


def test_a_session_that_utf_8_can_not_write_draws_or_is_refused(url: str) -> None:
    answered = call_as(url, f"half {GONE}", "generate", draw(str(uuid.uuid4())))
    assert answered is None or answered[0] == "complete", answered


def test_a_session_named_like_gradios_own_marks_is_refused_and_keeps_nobody_from_cancelling(url: str) -> None:
    api = f"{url}/gradio_api"
    for named in ("a<gradio-sep>b", "<gradio-sep>"):
        assert not join(url, named)
        body = {"data": draw(str(uuid.uuid4())), "session_hash": named}
        answer = httpx.post(f"{api}/call/generate", json=body, timeout=TIMEOUT)
        assert (answer.status_code, "<gradio-sep>" in answer.json()["detail"]) == (400, True)
    body = {"session_hash": "mine", "fn_index": 0, "event_id": "none"}
    assert httpx.post(f"{api}/cancel", json=body, timeout=TIMEOUT).status_code == 200


def test_a_caller_still_finds_the_jobs_of_its_session_and_no_others(url: str) -> None:
    sessions = {uuid.uuid4().hex * 4: str(uuid.uuid4()) for _ in range(2)}
    for session, job in sessions.items():
        assert call_as(url, session, "generate", draw(job)) is not None
    for session, job in sessions.items():
        event, (found,) = call_as(url, session, "jobs", [])  # type: ignore[misc]
        assert event == "complete"
        assert [one["job"] for one in found] == [job]


def request(**more: Any) -> Request:
    return Request({"type": "http", "headers": [], "client": ("8.8.8.8", 1), **more})


def test_sessions_stay_apart_and_are_kept_as_hashes_of_one_length() -> None:
    names = ["s", "s" * 64, "a" * LONG, "a" * LONG + "b", GONE, "\udfff", "\x00", "ä", "a\u0308", "🍎"]
    kept = [owner_of(gr.Request(request(), session_hash=name)).session for name in names]
    assert len(set(kept)) == len(names)
    assert {len(one) for one in kept} == {64}
    assert not set(kept) & set(names)
    again = [owner_of(gr.Request(request(), session_hash=name)).session for name in names]
    assert again == kept
    assert owner_of(request()).session == ""


def test_users_stay_apart_and_their_names_are_bounded() -> None:
    names = ["ann", "a" * 256, "a" * 257, "a" * LONG, "a" * LONG + "b", GONE]
    persons = [owner_of(request(**{USER: name})).person for name in names]
    # Nor can anybody take the name that stands for another's.
    names += [person.removeprefix("user:") for person in persons[2:]]
    persons = [owner_of(request(**{USER: name})).person for name in names]
    assert len(set(persons)) == len(names)
    assert persons[0] == "user:ann"
    assert all(person.startswith("user:") and len(person) <= LONGEST for person in persons)
    assert "".join(persons).encode()


def test_an_address_with_a_zone_of_any_length_is_bounded() -> None:
    for host in ("fe80::1%" + "z" * LONG, "::ffff:8.8.8.8%" + "z" * LONG, "z" * LONG):
        assert len(owner_of(request(client=(host, 1))).person) <= LONGEST
