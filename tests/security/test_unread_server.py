"""Strangers ask the real server and never read: how often and how much they ask is bounded, what they may
choose in Gradio's queue too, and it costs no answer of anybody else's."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client.utils import apply_diff

from api.gradio.joins import call_rates
from api.guard.access import Table
from pipeline.errors import RateLimited
from tests.conftest import STEPS, running
from tests.inside.sitecustomize import SCRIPTED
from tests.support.rest import TIMEOUT
from tests.support.tiny import SMALL

RATE, JOINS = "20/minute", 200
"""Drawings, and calls, of one person."""
OPEN = 100
LONG = SMALL | {"steps": 60, "images": 4}
"""More than is kept of one answer before it is read."""


class Visitors:
    """Clients of the server, each from an address of its own: to it, each another person."""

    def __init__(self, server: str) -> None:
        self.server, self._number = server, 1
        self._stack = contextlib.ExitStack()

    def another(self) -> httpx.Client:
        self._number += 1
        transport = httpx.HTTPTransport(local_address=f"127.0.0.{self._number}")
        http = httpx.Client(base_url=f"{self.server}/gradio_api", transport=transport, timeout=TIMEOUT)
        return self._stack.enter_context(http)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def visitors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitors]:
    folder: Path = tmp_path_factory.mktemp("strangers")
    with running(folder, STEPWISE_RATE=RATE, STEPWISE_GRACE="0", **SCRIPTED) as (url, _):
        visitors = Visitors(url)
        yield visitors
        visitors.close()


@pytest.fixture(scope="module")
def functions(visitors: Visitors) -> dict[str, int]:
    """The server's functions by name."""
    config = httpx.get(f"{visitors.server}/config", timeout=TIMEOUT).json()
    return {one["api_name"]: one["id"] for one in config["dependencies"]}


def answers(http: httpx.Client, session: str) -> Iterator[dict[str, Any]]:
    """A session's messages, to its end."""
    with http.stream("GET", "/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def drawn(http: httpx.Client, job: str) -> dict[str, Any]:
    """Follows a job to its end, once Gradio's queue has begun it; its last info."""
    while (info := followed(http, job))["phase"] == "unknown":
        time.sleep(0.1)
    return info


def until_known(http: httpx.Client, job: str) -> None:
    """Waits until Gradio has begun a job: one that nobody knows yet is followed to its end at once."""
    while True:
        event = http.post("/call/v2/job", json={"job": job}).json()["event_id"]
        with contextlib.closing(events(http, "job", event)) as news:
            _, (_, info) = next(news)
        if info["phase"] != "unknown":
            return
        time.sleep(0.1)


def followed(http: httpx.Client, job: str) -> dict[str, Any]:
    """The last info of a job."""
    event = http.post("/call/v2/job", json={"job": job}).json()["event_id"]
    *_, (_, (_, info)) = events(http, "job", event)
    return info


def events(http: httpx.Client, endpoint: str, event: str) -> Generator[tuple[str, Any], None, None]:
    with http.stream("GET", f"/call/{endpoint}/{event}") as lines:
        name = ""
        for line in lines.iter_lines():
            name = line.removeprefix("event: ") if line.startswith("event: ") else name
            if line.startswith("data: ") and name != "heartbeat":
                yield name, json.loads(line.removeprefix("data: "))


def test_whoever_comes_late_for_a_long_answer_gets_fewer_steps_and_the_last_picture(
    visitors: Visitors,
) -> None:
    late, job = visitors.another(), str(uuid.uuid4())
    event = late.post("/call/v2/generate", json=LONG | {"job": job}).json()["event_id"]
    assert drawn(visitors.another(), job)["phase"] == "finished"
    *steps, (last, (pictures, info)) = events(late, "generate", event)
    assert 1 < len(steps) < 60 * 4
    assert (last, info["phase"], len(pictures)) == ("complete", "finished", 4)


def test_the_differences_that_come_late_add_up_to_the_last_picture(
    visitors: Visitors, functions: dict[str, int]
) -> None:
    late, job = visitors.another(), str(uuid.uuid4())
    names = ("prompt", "model", "", "width", "height", "steps", "", "seed", "images", "job")
    data = [(LONG | {"job": job}).get(name) for name in names]
    join = {"data": data, "fn_index": functions["generate"], "session_hash": "late"}
    assert late.post("/queue/join", json=join).status_code == 200
    assert drawn(visitors.another(), job)["phase"] == "finished"
    so_far: list[Any] = []
    for message in answers(late, "late"):
        if message["msg"] == "process_generating":
            data = message["output"]["data"]
            so_far = [apply_diff(*both) for both in zip(so_far, data, strict=True)] if so_far else data
        elif message["msg"] == "process_completed":
            assert message["success"]
            assert message["output"]["data"] == so_far
            assert so_far[1]["phase"] == "finished"


def test_calls_are_limited_to_ten_times_as_many_as_drawings_and_those_of_one_person_only(
    visitors: Visitors,
) -> None:
    stranger = visitors.another()
    paths = ("/call/v2/models", "/call/models", "/queue/join")
    found = [stranger.post(paths[number % len(paths)], json={}).status_code for number in range(JOINS)]
    assert 429 not in found
    for path in paths:
        refused = stranger.post(path, json={})
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["detail"].startswith("Too many calls from here: at most 200 a minute.")
    assert stranger.get("/info").status_code == 200
    assert stranger.post("/run/models", json={"data": []}).status_code == 200
    assert visitors.another().post("/call/v2/models", json={}).status_code == 200


@pytest.mark.parametrize(
    ("path", "most"), [("queue/join", 10), ("call/v2/a", 10), ("run/a", 100), ("api/a/", 100)]
)
def test_every_rate_of_drawings_holds_for_calls_as_many_times(path: str, most: int) -> None:
    access = Table().find(f"/gradio_api/{path}", "POST")
    limit = call_rates("5/second, 1/minute")[access.often]
    for _ in range(most):
        limit.hit("address:192.0.2.1")
    with pytest.raises(RateLimited, match=f"at most {most} a minute"):
        limit.hit("address:192.0.2.1")
    limit.hit("address:192.0.2.2")
    unlimited = call_rates("")[access.often]
    for _ in range(most + 1):
        unlimited.hit("address:192.0.2.1")


def test_one_person_has_a_share_of_the_calls_that_are_open_and_others_have_theirs(
    visitors: Visitors, functions: dict[str, int]
) -> None:
    stranger, job = visitors.another(), str(uuid.uuid4())
    STEPS[visitors.server].hold(1)
    stranger.post("/call/v2/generate", json=SMALL | {"job": job})
    until_known(visitors.another(), job)
    join = {"data": [job], "fn_index": functions["job"], "session_hash": "stranger"}
    with ThreadPoolExecutor(20) as pool:
        found = list(
            pool.map(lambda _: stranger.post("/queue/join", json=join).status_code, range(OPEN + 20))
        )
    assert (found.count(200), found.count(429)) == (OPEN - 1, 21)
    refused = stranger.post("/queue/join", json=join)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert refused.json()["detail"].startswith("100 calls from here are open already")
    assert visitors.another().post("/call/v2/models", json={}).status_code == 200
    STEPS[visitors.server].go_on()
    assert drawn(visitors.another(), job)["phase"] == "finished"
    ends = [one for one in answers(stranger, "stranger") if one["msg"] == "process_completed"]
    assert len(ends) == OPEN - 1
    assert all(one["success"] for one in ends)


@pytest.mark.parametrize("name", ["x" * 129, "x" * 900_000, "a\nb", "ä", "\ud800"])
def test_a_session_or_an_event_with_a_name_that_no_client_sends_is_refused_in_words(
    visitors: Visitors, functions: dict[str, int], name: str
) -> None:
    http = visitors.another()
    fn = functions["models"]
    bodies = {
        "/queue/join": {"data": [], "fn_index": fn, "session_hash": name},
        "/call/models": {"data": [], "session_hash": name},
        "/run/models": {"data": [], "session_hash": name},
        "/cancel": {"fn_index": fn, "session_hash": name, "event_id": "none"},
        "/cancel/": {"fn_index": fn, "session_hash": "mine", "event_id": name},
        "/reset": {"event_id": name},
    }
    for path, body in bodies.items():
        content = json.dumps(body).encode()
        refused = http.post(path, content=content, headers={"content-type": "application/json"})
        if len(content) > Table().find(f"/gradio_api{path}", "POST").most_bytes:
            assert refused.status_code == 413, path
            continue
        assert refused.status_code == 400, path
        words = "half of a surrogate pair" if name == "\ud800" else "is a name of at most 128"
        assert words in refused.json()["detail"]


@pytest.mark.parametrize("name", ["x" * 129, "%C3%A4"])
def test_a_reader_of_a_session_with_such_a_name_is_refused_in_words(visitors: Visitors, name: str) -> None:
    http = visitors.another()
    for path in (f"/queue/data?session_hash={name}", f"/heartbeat/{name}"):
        refused = http.get(path)
        assert refused.status_code == 400, path
        assert "session_hash is a name of at most 128" in refused.json()["detail"]


def test_the_longest_name_is_taken(visitors: Visitors, functions: dict[str, int]) -> None:
    http, name = visitors.another(), "x" * 128
    join = {"data": [], "fn_index": functions["models"], "session_hash": name}
    assert http.post("/queue/join", json=join).status_code == 200
    assert [one["msg"] for one in answers(http, name)][-2:] == ["process_completed", "close_stream"]


def test_an_event_with_more_data_than_is_kept_of_one_is_refused_in_words(
    visitors: Visitors, functions: dict[str, int]
) -> None:
    http = visitors.another()
    long = {"data": [], "event_data": "x" * 300_000, "session_hash": "stranger"}
    for name, more in (("job", {"data": ["none"]}), ("resume", {}), ("job", {"data": ["x" * 300_000]})):
        refused = http.post("/queue/join", json=long | {"fn_index": functions[name]} | more)
        assert refused.status_code == 413
        assert "larger than 262,144 bytes" in refused.json()["detail"]


def test_an_id_as_long_as_a_book_is_no_jobs(visitors: Visitors) -> None:
    http, job = visitors.another(), str(uuid.uuid4())
    long = "-" * 100_000 + job
    assert http.post("/call/v2/generate", json=SMALL | {"job": long}).status_code == 422
    http.post("/call/v2/generate", json=SMALL | {"job": job})
    assert drawn(http, job)["phase"] == "finished"
    assert drawn(http, f"urn:uuid:{{{job.upper()}}}")["phase"] == "finished"
    assert followed(http, long) == {"job": None, "phase": "unknown"}
