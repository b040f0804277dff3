"""A client of /v1 that goes away ends its drawing within a step and frees the device; and what a stream says
while it waits."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from diffusers import SD3Transformer2DModel

from api.openai.request import ImageRequest
from api.openai.stream import Partials, stream
from jobs.lifecycle.subscription import Subscription
from jobs.queue import Queue
from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.request import Job
from tests.api.openai.openai_server import TINY, openai_server
from tests.jobs.queueing import stopping, until
from tests.support.queues import begin
from tests.support.rest import TIMEOUT
from tests.support.tiny import hold

CLIENT = """
import json, sys
from openai import OpenAI
answer = OpenAI(base_url=sys.argv[1] + "/v1", api_key="none").images.generate(**json.loads(sys.argv[2]))
for event in answer:
    pass
"""


@pytest.fixture
def server(tiny_queue: Queue) -> Iterator[str]:
    with openai_server(tiny_queue) as url:
        yield url


def official_client(server: str, job: str, **values: Any) -> subprocess.Popen[bytes]:
    """OpenAI's client in a process of its own, to be killed."""
    values = TINY | {"extra_body": {"job": job, "steps": 20}} | values
    return subprocess.Popen([sys.executable, "-c", CLIENT, server, json.dumps(values)])


def started(
    queue: Queue, job: str, client: subprocess.Popen[bytes], is_so: Callable[[Event], bool]
) -> Subscription:
    """The drawing, once there is one of which this is so."""
    while (drawing := queue.find(job)) is None:
        assert client.poll() is None, "the client has ended"
        time.sleep(0.01)
    for event in drawing.events():
        if is_so(event):
            return drawing
    raise AssertionError(f"it never was: {event}")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_killed_in_mid_step_ends_its_drawing_with_that_step(
    tiny_queue: Queue, server: str, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    gate, job = hold(monkeypatch, SD3Transformer2DModel, "forward", call=3), str(uuid.uuid4())
    client = official_client(server, job, stream=streamed, partial_images=3)
    drawing = started(tiny_queue, job, client, lambda event: event.phase == "denoising")
    gate.wait()
    client.send_signal(signal.SIGKILL)
    client.wait()
    until(lambda: stopping(drawing))  # while the step is still being drawn
    gate.open()
    assert drawing.result().phase == "stopped"
    assert gate.calls == 3
    assert begin(tiny_queue, {"prompt": "a fox"}).result().phase == "finished"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_client_killed_while_it_waits_leaves_the_line(
    tiny_queue: Queue, server: str, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    gate, job = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2), str(uuid.uuid4())
    first = begin(tiny_queue, {"prompt": "a fox", "model": "tiny"})
    gate.wait()
    client = official_client(server, job, stream=streamed)
    drawing = started(tiny_queue, job, client, lambda event: event.position == 1)
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert drawing.result().phase == "stopped"  # although the first is still being drawn
    gate.open()
    assert first.result().phase == "finished"


def test_who_only_watches_a_job_of_someone_else_doesnt_end_it_by_leaving(
    tiny_queue: Queue, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    drawing = begin(tiny_queue, {"prompt": "a fox", "model": "tiny"})
    gate.wait()
    body = {"prompt": "a fox", "stream": True, "job": drawing.job.id}
    with httpx.stream("POST", f"{server}/v1/images/generations", json=body, timeout=TIMEOUT) as watching:
        assert next(watching.iter_lines()) == f": job {drawing.job.id}"
    gate.open()
    assert drawing.result().phase == "finished"


def test_a_stream_that_has_nothing_to_say_sends_comments_that_say_how_it_stands(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    first, second = (begin(tiny_queue, {"prompt": "a fox", "model": "tiny"}) for _ in range(2))
    gate.wait()

    async def read() -> list[bytes]:
        said = []
        async for chunk in stream(second, ImageRequest(prompt="a fox"), silence=0.001):
            said.append(chunk)
            if chunk == b": queued, 1 ahead\n\n":
                gate.open()
        return said

    said = asyncio.run(read())
    assert said[0] == f": job {second.job.id}\n\n".encode()
    assert said[1] == b": queued, 1 ahead\n\n"
    events = [one for one in said if not one.startswith(b":")]
    assert events[-1].startswith(b"event: image_generation.completed\n")
    assert first.result().phase == "finished"


# Which previews are sent.


def sent(job: Job, wanted: int, shown: list[int]) -> list[int]:
    """The steps whose previews are partial images, where these steps' previews were seen."""
    partials = Partials(wanted)
    events = [Event(job, "denoising", step=step, previews=(b"%d" % step,)) for step in shown]
    return [event.step for event in events if partials.of(event) is not None]


@pytest.mark.parametrize(
    "wanted, steps, shown, expected",
    [
        (3, 28, range(1, 29), [1, 10, 19]),  # at once, past 28/3, past 56/3
        (1, 28, range(1, 29), [1]),
        (2, 4, range(1, 5), [1, 2]),
        (28, 28, range(1, 29), list(range(1, 29))),
        (60, 28, range(1, 29), list(range(1, 29))),
        (0, 28, range(1, 29), []),
        (3, 28, [15, 16, 28], [15, 16, 28]),  # previews came late: none is lost
        (3, 28, [5, 12], [5, 12]),
    ],
)
def test_partial_images_are_the_first_preview_and_others_spread_over_the_steps(
    tiny: Engine, wanted: int, steps: int, shown: Any, expected: list[int]
) -> None:
    job = tiny.check({"prompt": "a fox", "steps": steps})
    assert sent(job, wanted, list(shown)) == expected
