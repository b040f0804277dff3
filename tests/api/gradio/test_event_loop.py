"""The event loop that serves everyone never waits for SQLite or another file of ours; a stop of what has
ended writes nothing, so that a full disk takes no finished picture from anyone."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from diffusers import SD3Transformer2DModel

from api.gradio.patches import no_app
from api.routes import app_options
from jobs.queue import Queue
from jobs.store.sqlite import SqliteStore
from pipeline.errors import DiskFull
from tests.conftest import free_port
from tests.inside.event_loops import watch
from tests.support.mcp import connected
from tests.support.rest import TIMEOUT, call, post, stream
from tests.support.tiny import hold
from ui.page import _draw, _resume, build_page, launch_options

TINY = {"prompt": "a fox", "model": "tiny"}


@pytest.fixture
def server(tiny_queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The whole app over a queue of this process."""
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    demo = build_page(tiny_queue, 1)
    with no_app():
        demo.queue(api_open=False, default_concurrency_limit=None)
    options = app_options(demo, tiny_queue)
    _, url, _ = demo.launch(
        **launch_options(),
        server_name="127.0.0.1",
        server_port=free_port(),
        prevent_thread_lock=True,
        quiet=True,
        app_kwargs=options,
        mcp_server=False,
    )
    try:
        yield url.rstrip("/")
    finally:
        demo.close(verbose=False)


@pytest.fixture(autouse=True)
def on_loop() -> Iterator[list[str]]:
    """From where SQLite or another file was waited for by a thread that runs an event loop; none may be."""
    found: list[str] = []
    end = watch(found.append)
    yield found
    end()
    assert found == [], "\n".join(found)


def generate(server: str, **values: Any) -> httpx.Response:
    return httpx.post(f"{server}/v1/images/generations", json=TINY | values, timeout=TIMEOUT)


def events(server: str, **values: Any) -> list[str]:
    """The kinds of a stream's events."""
    body = TINY | {"stream": True} | values
    with httpx.stream("POST", f"{server}/v1/images/generations", json=body, timeout=TIMEOUT) as answer:
        return [line.partition(" ")[2] for line in answer.iter_lines() if line.startswith("event: ")]


async def by_mcp(server: str) -> Any:
    async with connected(server) as session:
        await session.list_tools()
        await session.call_tool("list_models", {})
        return await session.call_tool("draw", {"prompt": "a fox"})


def test_no_route_has_the_event_loop_wait_for_the_store(
    tiny_queue: Queue, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate(server).status_code == 200
    assert events(server)[-1] == "image_generation.completed"
    assert not asyncio.run(by_mcp(server)).isError
    job = str(uuid.uuid4())
    assert call(server, "generate", TINY | {"job": job})[1]["phase"] == "finished"
    for endpoint, body in (("job", {"job": job}), ("stop", {"job": job}), ("jobs", {}), ("models", {})):
        assert call(server, endpoint, body)
    for path in ("livez", "readyz", "metrics", "v1/models", "v1/models/tiny"):
        assert httpx.get(f"{server}/{path}", timeout=TIMEOUT).status_code == 200

    # Whoever leaves or stops in the middle.
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    first = post(server, "generate", TINY | {"job": (running := str(uuid.uuid4()))}).json()["event_id"]
    gate.wait()
    waiting = str(uuid.uuid4())
    body = TINY | {"stream": True, "job": waiting}
    with httpx.stream("POST", f"{server}/v1/images/generations", json=body, timeout=TIMEOUT) as answer:
        next(answer.iter_lines())
    left = tiny_queue.find(waiting)
    assert left is not None and left.result().phase == "stopped"
    assert post(server, "stop", {"job": running}).status_code == 200
    gate.open()
    assert list(stream(server, "generate", first))[-1][1][1]["phase"] == "stopped"

    async def page() -> list[dict[str, Any]]:
        files: Any = None
        values = TINY | {"job": job, "model": "tiny", "negative_prompt": "", "seed": "", "guidance": 3}
        seen = [value async for value in _draw(tiny_queue, files, values, {})]
        return seen + [value async for value in _resume(tiny_queue, files, str(uuid.uuid4()))]

    monkeypatch.setattr("ui.page.live_value", lambda event, _: event.info())
    assert [value.get("phase") for value in asyncio.run(page())] == ["finished", None]


def test_a_disk_that_is_full_when_a_picture_is_finished_takes_it_from_nobody(
    tiny_queue: Queue, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFull("The disk is full.")

    monkeypatch.setattr(SqliteStore, "stop", full)
    answer = generate(server)
    assert answer.status_code == 200, answer.text
    assert events(server)[-1] == "image_generation.completed"
    drawn = asyncio.run(by_mcp(server))
    assert not drawn.isError, drawn
    assert json.loads(drawn.content[1].text)["model"] == "tiny"
    job = str(uuid.uuid4())
    call(server, "generate", TINY | {"job": job})
    assert call(server, "stop", {"job": job})[0]["phase"] == "finished"


def test_a_full_disk_keeps_nobody_from_stopping_what_waits(
    tiny_queue: Queue, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFull("The disk is full.")

    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    post(server, "generate", TINY | {"job": (running := str(uuid.uuid4()))})
    gate.wait()
    post(server, "generate", TINY | {"job": (waiting := str(uuid.uuid4()))})
    while tiny_queue.find(waiting) is None:
        time.sleep(0.01)
    with monkeypatch.context() as disk:
        disk.setattr(SqliteStore, "stop", full)
        assert call(server, "stop", {"job": waiting})[0]["phase"] == "stopped"
    gate.open()
    first = tiny_queue.find(running)
    assert first is not None and first.result().phase == "finished"
    # It was written down before anything else was begun, and is never drawn.
    assert call(server, "generate", TINY)[1]["phase"] == "finished"
    record = tiny_queue._store.get(waiting)
    assert record is not None and (record.state, record.attempt) == ("stopped", 0)
