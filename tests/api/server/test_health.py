"""What an owner has of a server: /livez, /readyz and /metrics, which tell nothing of what visitors draw, a
model of their own, and an end that delivers what is being drawn and leaves nothing that a visitor made.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.gradio.patches import no_app
from api.server.health import health_routes
from jobs.queue import Queue
from tests.conftest import STEPS, running
from tests.support.mcp import ACCEPT, initialize
from tests.support.rest import TIMEOUT, call, figures, post, stream
from tests.support.steps import Steps
from tests.support.tiny import SMALL, entry, models_yaml, pixels, repository_entries, tiny_sd3

SECRET = "a fox nobody else knows of"
LONG = SMALL | {"prompt": SECRET, "steps": 60, "images": 2}
OK = {"status": "ok"}


@dataclass(frozen=True)
class Served:
    url: str
    log: Path
    process: subprocess.Popen[bytes]
    gradio: Path
    """Gradio's folder of files."""

    def kept(self) -> list[Path]:
        return [path for path in self.gradio.rglob("*") if path.is_file()]

    def figures(self) -> dict[tuple[str, ...], float]:
        """What Prometheus reads: by name and the labels' values."""
        assert SECRET not in httpx.get(f"{self.url}/metrics", timeout=TIMEOUT).text
        return figures(self.url)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("health")
    tiny_sd3(folder / "my-model")  # beside the models.yaml
    models = models_yaml(folder, *repository_entries().values(), entry(Path("my-model"), "sixth"))
    # An owner's environment may switch Gradio's own MCP server on, with a tool for every endpoint.
    settings = {"STEPWISE_MODELS": str(models), "STEPWISE_GRACE": "120", "GRADIO_MCP_SERVER": "True"}
    with running(folder, **settings) as (url, process):
        while httpx.get(f"{url}/readyz", timeout=TIMEOUT).status_code == 503:  # the page answers before
            time.sleep(0.05)
        yield Served(url, folder / "server.log", process, folder / "gradio")


@pytest.fixture
def steps(served: Served) -> Iterator[Steps]:
    """The steps of that server's drawings."""
    yield STEPS[served.url]
    STEPS[served.url].go_on()


@pytest.mark.parametrize("path", ["livez", "readyz"])
def test_a_server_that_draws_says_so(served: Served, path: str) -> None:
    answer = httpx.get(f"{served.url}/{path}", timeout=TIMEOUT)
    assert (answer.status_code, answer.json()) == (200, OK)
    assert answer.headers["cache-control"] == "no-store"


def test_the_figures_count_what_was_drawn_stopped_and_refused_and_hold_no_prompt(
    served: Served, steps: Steps
) -> None:
    before = served.figures()
    call(served.url, "generate", SMALL | {"prompt": SECRET})
    steps.hold(2)
    event = post(served.url, "generate", LONG).json()["event_id"]
    for _, (_, info) in stream(served.url, "generate", event):
        if info["step"] == 2:
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


def test_a_sixth_model_is_one_more_entry_and_draws(served: Served) -> None:
    assert [model["id"] for model in call(served.url, "models", {})[0]][-1] == "sixth"
    images, info = call(served.url, "generate", {"prompt": "a red apple", "model": "sixth"})
    assert (info["phase"], info["model"], info["steps"]) == ("finished", "sixth", 4)
    assert pixels(httpx.get(images[0]["image"]["url"], timeout=TIMEOUT).content).shape == (64, 64, 3)


def test_gradios_own_mcp_server_stays_off_whatever_the_environment_says(served: Served) -> None:
    assert httpx.get(f"{served.url}/gradio_api/mcp/", timeout=TIMEOUT).status_code == 404


def test_a_server_that_is_told_to_end_is_not_ready_and_delivers_what_it_draws_and_gradio_keeps_none_of_it(
    served: Served, steps: Steps
) -> None:
    """The last one of that server."""
    url = served.url
    call(url, "generate", SMALL)
    steps.hold(1)
    event = post(url, "generate", SMALL).json()["event_id"]
    seen: list[Any] = []
    drawing = threading.Event()

    def read() -> None:
        for _, data in stream(url, "generate", event):
            seen.append(data)
            if data[1]["phase"] == "denoising":
                drawing.set()
            if data[1]["phase"] == "finished":
                seen.append(httpx.get(data[0][0]["image"]["url"], timeout=TIMEOUT).content)

    session = {"Accept": ACCEPT, "Mcp-Session-Id": initialize(url).headers["mcp-session-id"]}
    with httpx.stream("GET", f"{url}/mcp", headers=session, timeout=TIMEOUT) as listens:
        assert listens.status_code == 200
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        assert drawing.wait(TIMEOUT)
        assert served.kept() == []
        served.process.send_signal(signal.SIGTERM)
        while (answer := httpx.get(f"{url}/readyz", timeout=TIMEOUT)).status_code == 200:
            time.sleep(0.01)
        assert answer.status_code == 503
        assert answer.json()["status"] == "not ready"
        assert answer.json()["reason"].startswith("draining")
        assert httpx.get(f"{url}/livez", timeout=TIMEOUT).json() == OK
        steps.go_on()
        reader.join(TIMEOUT)
        assert served.process.wait(TIMEOUT) == 0  # though somebody still listens
    assert seen[-1][:8] == b"\x89PNG\r\n\x1a\n"
    assert served.kept() == []
    assert "Traceback" not in served.log.read_text()


# In this process, because nobody can break a real server from outside.


@pytest.fixture
def page() -> gr.Blocks:
    """A page whose queue has begun."""
    with no_app():
        with gr.Blocks() as demo:
            gr.Textbox()
        demo.queue()
    demo._queue.active_jobs = [None]
    return demo


def test_a_server_whose_page_is_about_to_begin_is_alive_but_not_ready(tiny_queue: Queue) -> None:
    with gr.Blocks() as demo:
        gr.Textbox()
    demo.queue()
    with TestClient(Starlette(routes=health_routes(demo, tiny_queue))) as client:
        assert client.get("/livez").json() == OK
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "the page's queue hasn't begun")


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
    tiny_queue._housekeeping.close()
    with TestClient(Starlette(routes=health_routes(page, tiny_queue))) as client:
        assert client.get("/livez").json()["reason"] == "the queue's clock has ended"
