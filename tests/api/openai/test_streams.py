"""An event of a stream is there before the next is made, also behind nginx, which buffers by default: the
second step is held until the preview of the first has arrived."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from diffusers import SD3Transformer2DModel

from api.gradio.patches import no_app
from api.routes import app_options
from jobs.queue import Queue
from tests.conftest import free_port
from tests.support.mcp import ACCEPT, initialize
from tests.support.rest import TIMEOUT
from tests.support.services.nginx import DEFAULTS, needs_nginx, nginx
from tests.support.tiny import Gate, hold
from ui.page import build_page, launch_options

STEPS = 6
VALUES = {"prompt": "a fox", "steps": STEPS, "width": 64, "height": 64}


@dataclass
class Drawing:
    """A client of a server in this process, behind nginx, and what holds the drawing."""

    http: httpx.Client
    gate: Gate


@pytest.fixture
def drawing(tiny_queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawing]:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    demo = build_page(tiny_queue)
    with no_app():
        demo.queue(api_open=False)
    port = free_port()
    demo.launch(
        **launch_options(),
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        app_kwargs=app_options(demo, tiny_queue),
    )
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    (folder := tmp_path / "nginx").mkdir()
    try:
        with (
            nginx(folder, (DEFAULTS, f"http://127.0.0.1:{port}")) as (url,),
            httpx.Client(base_url=url, timeout=TIMEOUT) as http,
        ):
            yield Drawing(http, gate)
    finally:
        gate.open()
        demo.close(verbose=False)


def read_past_the_gate(lines: Iterator[str], before: str, last: str, gate: Gate) -> None:
    """Reads until `before` has come, of the step before the one that is held; lets that go on, and reads
    until `last`."""
    assert any(before in line for line in lines), f"no {before}"
    gate.wait()  # until it is reached: nobody has let it go on yet
    gate.open()
    assert any(last in line for line in lines), f"no {last}"


def flows(answer: httpx.Response) -> bool:
    """Whether it says that nobody may change it; nginx doesn't hand on that it may not hold it back."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return answer.headers["cache-control"] == "no-cache, no-transform"


@needs_nginx
def test_the_preview_of_a_rest_caller_comes_before_the_next_step_is_drawn(drawing: Drawing) -> None:
    event = drawing.http.post("/gradio_api/call/v2/generate", json=VALUES).json()["event_id"]
    with drawing.http.stream("GET", f"/gradio_api/call/generate/{event}") as answer:
        assert flows(answer)
        read_past_the_gate(answer.iter_lines(), "preview.jpg", '"finished"', drawing.gate)


@needs_nginx
def test_the_preview_of_the_page_comes_before_the_next_step_is_drawn(drawing: Drawing) -> None:
    config = drawing.http.get("/config").json()
    generate = next(one["id"] for one in config["dependencies"] if one["api_name"] == "generate")
    names = [one["parameter_name"] for one in drawing.http.get("/gradio_api/info").json()[
        "named_endpoints"]["/generate"]["parameters"]]  # fmt: skip
    data = [VALUES.get(name) for name in names]
    body = {"data": data, "fn_index": generate, "session_hash": "session"}
    assert drawing.http.post("/gradio_api/queue/join", json=body).status_code == 200
    with drawing.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "session"}) as answer:
        assert flows(answer)
        read_past_the_gate(answer.iter_lines(), "preview.jpg", '"finished"', drawing.gate)


@needs_nginx
def test_the_partial_image_of_openais_client_comes_before_the_next_step_is_drawn(drawing: Drawing) -> None:
    body = {"prompt": "a fox", "size": "64x64", "steps": STEPS, "stream": True, "partial_images": STEPS}
    with drawing.http.stream("POST", "/v1/images/generations", json=body) as answer:
        assert flows(answer)
        before = '"type": "image_generation.partial_image"'
        read_past_the_gate(answer.iter_lines(), before, "image_generation.completed", drawing.gate)


@needs_nginx
def test_the_progress_of_an_mcp_client_comes_before_the_next_step_is_drawn(drawing: Drawing) -> None:
    url = str(drawing.http.base_url).rstrip("/")
    begun = initialize(url, drawing.http)
    headers = {"Accept": ACCEPT, "mcp-session-id": begun.headers["mcp-session-id"]}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    drawing.http.post("/mcp", json=ready, headers=headers)
    parameters = {"name": "draw", "arguments": VALUES, "_meta": {"progressToken": str(uuid.uuid4())}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": parameters}
    with drawing.http.stream("POST", "/mcp", json=call, headers=headers) as answer:
        assert flows(answer)
        read_past_the_gate(answer.iter_lines(), "step 1 of", '"result"', drawing.gate)


@needs_nginx
def test_a_heartbeat_is_not_held_back(drawing: Drawing) -> None:
    with drawing.http.stream("GET", "/gradio_api/heartbeat/session") as answer:
        assert flows(answer)
