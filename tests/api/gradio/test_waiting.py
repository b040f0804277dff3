"""However many callers wait, /models and /stop answer: nobody waits in a thread. What is drawn meanwhile is
held at a step, so that whoever waited for it would never be answered."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
from gradio_client import Client

from tests.support.rest import TIMEOUT
from tests.support.steps import Steps
from tests.support.tiny import SMALL

WAITERS = 45
LONG = SMALL | {"steps": 60, "images": 2}


async def events(http: httpx.AsyncClient, endpoint: str, values: dict[str, Any]) -> AsyncIterator[Any]:
    answer = await http.post(f"/gradio_api/call/v2/{endpoint}", json=values)
    assert answer.status_code == 200, answer.text
    async with http.stream("GET", f"/gradio_api/call/{endpoint}/{answer.json()['event_id']}") as lines:
        async for line in lines.aiter_lines():
            if line.startswith("data: ") and (data := json.loads(line.removeprefix("data: "))):
                yield data


async def asked(http: httpx.AsyncClient, endpoint: str, values: dict[str, Any]) -> tuple[Any, float]:
    """The answer and the seconds it took."""
    began = time.monotonic()
    data = [data async for data in events(http, endpoint, values)][-1][0]
    return data, time.monotonic() - began


class Caller:
    """One caller of /generate: what it was last told, and whether its stream has ended."""

    def __init__(self) -> None:
        self.job = str(uuid.uuid4())
        self.info: dict[str, Any] = {}
        self.told = asyncio.Event()

    async def draw(self, http: httpx.AsyncClient) -> None:
        async for _, info in events(http, "generate", LONG | {"job": self.job}):
            self.info = info
            self.told.set()


async def crowd(server: str, steps: Steps, record: Any) -> None:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=server, timeout=TIMEOUT, limits=limits) as http:
        callers = [Caller() for _ in range(1 + WAITERS)]
        streams = []
        for caller in callers:
            streams.append(asyncio.ensure_future(caller.draw(http)))
            await asyncio.wait_for(caller.told.wait(), TIMEOUT)
        assert [caller.info["phase"] for caller in callers[1:]] == ["queued"] * WAITERS
        assert callers[-1].info["position"] == WAITERS

        latencies = []
        for _ in range(8):
            models, seconds = await asked(http, "models", {})
            assert len(models) == 5
            latencies.append(seconds)
        page = time.monotonic()
        assert (await http.get("/")).status_code == 200
        record("models_median_s", round(statistics.median(latencies), 3))
        record("models_max_s", round(max(latencies), 3))
        record("page_s", round(time.monotonic() - page, 3))

        # From another client altogether, the one being drawn; nobody else ends.
        client = await asyncio.to_thread(Client, server, verbose=False)
        began = time.monotonic()
        answer = await asyncio.to_thread(client.predict, callers[0].job, api_name="/stop")
        record("stop_drawn_s", round(time.monotonic() - began, 3))
        assert (answer["job"], answer["phase"]) == (callers[0].job, "stopped")
        await asyncio.wait_for(streams[0], TIMEOUT)
        assert callers[0].info["phase"] == "stopped"
        assert not [caller for caller in callers[1:] if caller.info["phase"] in ("stopped", "failed")]

        answer, seconds = await asked(http, "stop", {"job": callers[-1].job})  # one that still waits
        record("stop_queued_s", round(seconds, 3))
        assert answer["phase"] == "stopped"

        for caller in reversed(callers[1:-1]):
            await asked(http, "stop", {"job": caller.job})
        await asyncio.gather(*streams)
        assert {caller.info["phase"] for caller in callers} == {"stopped"}
        steps.go_on()
        drawn = [data async for data in events(http, "generate", SMALL)][-1][1]
        assert drawn["phase"] == "finished"


def test_models_and_stop_answer_while_45_callers_wait(
    server: str, steps: Steps, record_property: Any
) -> None:
    steps.hold(1)
    figures: dict[str, float] = {}
    asyncio.run(crowd(server, steps, figures.__setitem__))
    for name, value in figures.items():
        record_property(name, value)
    print(figures)
