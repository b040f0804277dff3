"""/livez, /readyz and /metrics tell what whoever runs the server needs, and nothing of what visitors draw."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.health import health_routes
from jobs.queue import Queue
from tests.conftest import ROOT, free_port, serve
from tests.rest import TIMEOUT, call, post, stream
from tests.tiny import SMALL

SECRET = "a fox nobody else knows of"
LONG = SMALL | {"prompt": SECRET, "width": 384, "height": 384, "steps": 60, "images": 2}
OK = {"status": "ok"}


@dataclass(frozen=True)
class Served:
    url: str
    log: Path

    def figures(self) -> dict[tuple[str, ...], float]:
        """What Prometheus reads: by name and the labels' values."""
        answer = httpx.get(f"{self.url}/metrics", timeout=TIMEOUT)
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert SECRET not in answer.text
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("health")
    with serve(folder) as url:
        yield Served(url, folder / "server.log")


@pytest.mark.parametrize("path", ["livez", "readyz"])
def test_a_server_that_draws_says_so(served: Served, path: str) -> None:
    answer = httpx.get(f"{served.url}/{path}", timeout=TIMEOUT)
    assert (answer.status_code, answer.json()) == (200, OK)
    assert answer.headers["cache-control"] == "no-store"


def test_the_figures_count_what_was_drawn_stopped_and_refused_and_hold_no_prompt(served: Served) -> None:
    before = served.figures()
    call(served.url, "generate", SMALL | {"prompt": SECRET})
    event = post(served.url, "generate", LONG).json()["event_id"]
    for _, (_, info) in stream(served.url, "generate", event):
        if info["phase"] == "denoising":
            call(served.url, "stop", {"job": info["job"]})
            break
    assert post(served.url, "generate", SMALL | {"prompt": SECRET, "steps": 10**6}).status_code == 422
    after = served.figures()

    def counted(*sample: str) -> float:
        return after[sample] - before.get(sample, 0)

    assert counted("stepwise_jobs_ended_total", "sketch", "finished") == 1
    assert counted("stepwise_jobs_ended_total", "sketch", "stopped") == 1
    assert counted("stepwise_stops_total", "running") == 1
    assert counted("stepwise_refusals_total", "invalid_request") == 1
    assert counted("stepwise_drawing_seconds_count", "sketch") == 1
    assert counted("stepwise_step_seconds_count", "sketch") >= 1
    assert after["stepwise_jobs_running", "cpu", "sketch"] == 0


def test_the_log_has_one_line_for_each_job_and_no_prompt(served: Served) -> None:
    answer = call(served.url, "generate", SMALL | {"prompt": SECRET, "seed": 8})
    job = answer[1]["job"]
    lines = [line for line in served.log.read_text().splitlines() if job[:8] in line]
    assert len(lines) == 1
    assert json.loads(lines[0])["outcome"] == "finished"
    assert SECRET not in served.log.read_text()
    assert job not in served.log.read_text()


def test_a_server_that_is_told_to_end_is_not_ready_and_delivers_what_it_draws(tmp_path: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(tmp_path / "gradio"),
        "STEPWISE_DATA": str(tmp_path / "data"),
        "STEPWISE_GRACE": "120",
        "HF_HUB_OFFLINE": "1",
    }
    with (tmp_path / "server.log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _until_ready(process, url)
        event = post(url, "generate", SMALL | {"width": 256, "height": 256, "steps": 40}).json()["event_id"]
        seen: list[Any] = []
        drawing = threading.Event()

        def read() -> None:
            for _, data in stream(url, "generate", event):
                seen.append(data)
                if data[1]["phase"] == "denoising":
                    drawing.set()
                if data[1]["phase"] == "finished":
                    seen.append(httpx.get(data[0][0]["image"]["url"], timeout=TIMEOUT).content)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert drawing.wait(TIMEOUT)
        process.send_signal(signal.SIGTERM)
        while (answer := httpx.get(f"{url}/readyz", timeout=TIMEOUT)).status_code == 200:
            time.sleep(0.01)
        assert answer.status_code == 503
        assert answer.json()["status"] == "not ready"
        assert answer.json()["reason"].startswith("draining")
        assert httpx.get(f"{url}/livez", timeout=TIMEOUT).json() == OK
        reader.join(TIMEOUT)
        assert process.wait(TIMEOUT) == 0
        assert seen[-1][:8] == b"\x89PNG\r\n\x1a\n"
    finally:
        process.kill()
        process.wait()


def _until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)


# In this process, because nobody can break a real server from outside.


@pytest.fixture
def page() -> gr.Blocks:
    """A page whose queue has begun."""
    with gr.Blocks() as demo:
        gr.Textbox()
    demo.queue()
    demo._queue.active_jobs = [None]
    return demo


def test_a_server_whose_page_starts_no_events_any_more_is_dead(page: gr.Blocks, tiny_queue: Queue) -> None:
    with TestClient(Starlette(routes=health_routes(page, tiny_queue))) as client:
        assert client.get("/livez").json() == OK

        async def fails() -> None:
            page._queue.active_jobs = None  # what its loop can't go on with
            page._queue.event_queue_per_concurrency_id["x"] = type("Full", (), {"queue": [1]})()
            with pytest.raises(TypeError):
                await page._queue.start_processing()
            page._queue.active_jobs = [None]

        asyncio.run(fails())
        for path in ("/livez", "/readyz"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json()["reason"] == "the page's queue has stopped"


def test_a_server_with_a_dead_thread_is_dead(
    page: gr.Blocks, tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Thread(target=lambda: None, name="queue cpu")
    monkeypatch.setattr(tiny_queue._dispatch, "_threads", [gone])
    with TestClient(Starlette(routes=health_routes(page, tiny_queue))) as client:
        answer = client.get("/livez")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "dead",
        "reason": "a thread has ended that gives out jobs: queue cpu",
    }


def test_a_server_whose_clock_has_ended_is_dead(page: gr.Blocks, tiny_queue: Queue) -> None:
    tiny_queue._watch.close()
    with TestClient(Starlette(routes=health_routes(page, tiny_queue))) as client:
        assert client.get("/livez").json()["reason"] == "the queue's clock has ended"
