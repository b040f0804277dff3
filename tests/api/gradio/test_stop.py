"""/stop ends that job and no other, from anywhere; a client that goes away frees the device."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from diffusers import SD3Transformer2DModel
from gradio_client import Client

from api.gradio.endpoints import draw, stop_job
from api.pictures import PictureFiles
from jobs.queue import Queue
from tests.jobs.queueing import until
from tests.support.queues import begin
from tests.support.rest import call, figures, post, stream
from tests.support.steps import Steps
from tests.support.tiny import SMALL, hold

LONG = SMALL | {"steps": 60, "images": 2}
"""Held at a step by each test."""
TINY = {"prompt": "a fox", "model": "tiny", "steps": 20}


def test_a_job_is_stopped_from_another_client_and_keeps_its_last_preview(server: str, steps: Steps) -> None:
    steps.hold(1)
    drawing, job = Client(server, verbose=False), str(uuid.uuid4())
    running = drawing.submit(**LONG, job=job, api_name="/generate")
    for images, _ in running:
        if images:
            break
    answer = Client(server, verbose=False).predict(job, api_name="/stop")
    assert (answer["job"], answer["phase"]) == (job, "stopped")
    images, info = running.result()
    assert (info["phase"], info["job"]) == ("stopped", job)
    assert info["step"] < 60
    (picture,) = images
    assert Path(picture["image"]).read_bytes()[:3] == b"\xff\xd8\xff"  # a JPEG


def test_an_id_written_in_capitals_is_the_same_id(server: str, client: Client, steps: Steps) -> None:
    steps.hold(1)
    job = str(uuid.uuid4())
    event = post(server, "generate", LONG | {"job": job}).json()["event_id"]
    phases = []
    for _, data in stream(server, "generate", event):
        if not phases:
            assert client.predict(job.upper(), api_name="/stop")["phase"] == "stopped"
        phases.append(data[1]["phase"])
    assert phases[-1] == "stopped"


@pytest.mark.parametrize(
    "job", ['"x"', "1", "null", '["a"]', "NaN", '"\\ud800"', '""', "{}", f'"{"x" * 10**6}"']
)
def test_an_id_that_is_no_job_is_answered_as_unknown(server: str, job: str) -> None:
    assert call(server, "stop", f'{{"job": {job}}}'.encode()) == [{"job": None, "phase": "unknown"}]


def test_a_job_that_has_ended_is_answered_as_unknown(client: Client) -> None:
    _, info = client.predict(**SMALL, api_name="/generate")
    answer = client.predict(info["job"], api_name="/stop")
    assert answer["job"] == info["job"]
    assert answer["phase"] in ("unknown", "finished")


def test_closing_the_generator_in_mid_step_never_waits_for_the_step(
    tiny_queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradio closes it on its event loop: a close that waited would freeze every request."""
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=3)

    async def vanish() -> str:
        reader = draw(tiny_queue, TINY, PictureFiles(tmp_path))
        _, info = await anext(reader)
        await asyncio.to_thread(gate.wait)
        await asyncio.wait_for(reader.aclose(), 5)  # type: ignore[attr-defined]  # the gate is still shut
        return info["job"]

    job = asyncio.run(vanish())
    drawing = tiny_queue.find(job)
    assert drawing is not None
    until(lambda: drawing.tracked is not None and drawing.tracked.stop_asked)
    gate.open()
    assert drawing.result().phase == "stopped"
    assert gate.calls == 3
    assert begin(tiny_queue, TINY).result().phase == "finished"


def test_stop_answers_only_when_the_job_has_really_ended(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    drawing = begin(tiny_queue, TINY)
    gate.wait()

    async def stop() -> Any:
        answer = asyncio.ensure_future(stop_job(tiny_queue, drawing.job.id))
        await asyncio.sleep(0)
        assert not answer.done()
        gate.open()
        return await answer

    assert asyncio.run(stop())["phase"] == "stopped"


def test_a_cancelled_client_job_ends_and_the_next_one_draws(
    server: str, client: Client, steps: Steps
) -> None:
    steps.hold(1)
    before = stopped(server)
    running = client.submit(**LONG, api_name="/generate")
    _, info = next(one for one in running if one[0])
    running.cancel()
    until(lambda: stopped(server) > before)  # whoever follows it sooner would keep it
    steps.go_on()
    assert phases_of(server, info["job"])[-1] == "stopped"
    assert client.predict(**SMALL, api_name="/generate")[1]["phase"] == "finished"


CLIENT = """
import sys
from gradio_client import Client
for images, info in Client(sys.argv[1], verbose=False).submit(**eval(sys.argv[2]), api_name="/generate"):
    if images or sys.argv[3] == "queued":
        print(info["job"], flush=True)
"""


def stopped(server: str) -> float:
    """Jobs of this server that were ended before their time."""
    return figures(server).get(("stepwise_jobs_ended_total", "sketch", "stopped"), 0)


def kill_a_client_once_it_is(phase: str, server: str) -> str:
    """Gives its job's id, once the server has noticed that it is gone and has ended it."""
    before = stopped(server)
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, server, repr(LONG), phase],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    job = process.stdout.readline().strip()
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: stopped(server) > before)  # it is noticed when it is sent something
    return job


def phases_of(server: str, job: str) -> list[str]:
    """What becomes of a job that someone else started."""
    event = post(server, "job", {"job": job}).json()["event_id"]
    return [data[1]["phase"] for _, data in stream(server, "job", event)]


@pytest.mark.sketch
def test_a_client_killed_in_mid_step_frees_the_device(server: str, steps: Steps) -> None:
    steps.hold(1)
    job = kill_a_client_once_it_is("denoising", server)
    steps.go_on()
    assert phases_of(server, job)[-1] == "stopped"
    assert call(server, "generate", SMALL)[1]["phase"] == "finished"


def test_a_client_killed_while_it_waits_leaves_the_line(server: str, steps: Steps) -> None:
    steps.hold(1)
    first = str(uuid.uuid4())
    event = post(server, "generate", LONG | {"job": first}).json()["event_id"]
    running = stream(server, "generate", event)
    next(running)
    job = kill_a_client_once_it_is("queued", server)
    assert set(phases_of(server, job)) == {"stopped"}  # it was never begun
    call(server, "stop", {"job": first})
    assert [data[1]["phase"] for _, data in running][-1] == "stopped"
