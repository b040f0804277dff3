"""An MCP call ends its job within a step when it is cancelled, closed or killed; and sessions that nobody
ends end by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from diffusers import SD3Transformer2DModel
from mcp import ClientSession, McpError
from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

from api.mcp.http import Visit
from jobs.lifecycle.subscription import Subscription
from jobs.queue import Queue
from tests.clients import CLIENTS, NewestClients
from tests.support.mcp import connected, initialize, mcp_over, words
from tests.support.queues import begin
from tests.support.rest import TIMEOUT
from tests.support.tiny import Gate, hold

TINY = {"prompt": "a fox", "steps": 20}
HELD = 3
"""Which step is held: whatever ends the job then must end it before the next."""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return hold(monkeypatch, SD3Transformer2DModel, "forward", call=HELD)


@pytest.fixture
def started(tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch) -> list[Subscription]:
    """Every job that this queue starts."""
    drawings: list[Subscription] = []
    start = tiny_queue.start

    def recorded(*job: Any) -> Subscription:
        drawings.append(start(*job))
        return drawings[-1]

    monkeypatch.setattr(tiny_queue, "start", recorded)
    return drawings


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def stopped_in_that_step(gate: Gate, drawing: Subscription) -> bool:
    """Lets the held step end, once the job was told to stop; no other may follow."""
    until(lambda: drawing.tracked is not None and drawing.tracked.stop_asked)
    gate.open()
    return (drawing.result().phase, gate.calls) == ("stopped", HELD)


async def call_in_mid_step(session: ClientSession, gate: Gate) -> asyncio.Task[Any]:
    calling = asyncio.ensure_future(session.call_tool("draw", TINY))
    await asyncio.to_thread(gate.wait)
    return calling


def test_a_cancelled_call_stops_its_job_within_a_step_and_the_session_draws_on(
    tiny_queue: Queue, gate: Gate, started: list[Subscription]
) -> None:
    async def run(url: str) -> None:
        async with connected(url) as session:
            request = session._request_id  # the next call's; the client (1.30) has no other way to cancel it
            calling = await call_in_mid_step(session, gate)
            cancel = CancelledNotificationParams(requestId=request, reason="changed my mind")
            await session.send_notification(ClientNotification(CancelledNotification(params=cancel)))
            with pytest.raises(McpError, match="cancelled"):
                await calling
            assert stopped_in_that_step(gate, started[0])
            assert not (await session.call_tool("draw", TINY)).isError

    with mcp_over(tiny_queue) as (url, _):
        asyncio.run(run(url))
    assert started[1].latest.phase == "finished"


@pytest.mark.parametrize("ends", [True, False], ids=["with its session ended", "with its connections cut"])
def test_a_client_that_is_closed_stops_its_job_within_a_step(
    tiny_queue: Queue, gate: Gate, started: list[Subscription], ends: bool
) -> None:
    async def run(url: str) -> None:
        async with connected(url, ends) as session:
            calling = await call_in_mid_step(session, gate)
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError, McpError):
            await calling

    with mcp_over(tiny_queue) as (url, _):
        asyncio.run(run(url))
        assert stopped_in_that_step(gate, started[0])


NEWEST = """
import functools, json, sys
import anyio
from mcp import Client

async def main(url, mode):
    told = []

    async def tell(progress, total, message):
        told.append((progress, total))

    async with Client(url, mode=mode) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        draw = functools.partial(
            client.call_tool, "draw", {"prompt": "a fox", "steps": 20}, progress_callback=tell
        )
        async with anyio.create_task_group() as group:
            group.start_soon(draw)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            group.cancel_scope.cancel()
        print("cancelled", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        told.clear()
        result = await draw()
        kinds = [content.type for content in result.content]
        print(json.dumps([client.protocol_version, tools, result.is_error, kinds, told]))

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_newest_client_begins_is_told_each_step_and_cancels_whatever_protocol_it_asks_for_first(
    tiny_queue: Queue,
    tmp_path: Path,
    gate: Gate,
    started: list[Subscription],
    newest_clients: NewestClients,
    mode: str,
) -> None:
    """mcp 2 asks for a protocol without sessions first (`auto`), which the server (1.30) doesn't speak."""
    (client,) = [client for client in CLIENTS if client.name == "mcp"]
    python = newest_clients(client).python
    with mcp_over(tiny_queue) as (url, _):
        command = [python, "-c", NEWEST, f"{url}/mcp", mode]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **pipes) as process:
            try:
                gate.wait()
                process.stdin.write("now\n")
                process.stdin.flush()
                assert process.stdout.readline() == "cancelled\n"
                assert stopped_in_that_step(gate, started[0])
                process.stdin.write("again\n")  # not before: its steps would be counted, too
                process.stdin.flush()
                version, tools, failed, kinds, told = json.loads(process.stdout.readline())
            finally:
                process.kill()
    assert (version, tools) == ("2025-11-25", ["draw", "list_models"])
    assert (failed, kinds) == (False, ["image", "text"])
    steps = [step for step, _ in told]
    assert told and {total for _, total in told} == {20} and steps == sorted(set(steps))


KILLED = """
import asyncio, sys
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

async def main():
    async with streamable_http_client(sys.argv[1]) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        await session.call_tool("draw", {"prompt": "a fox", "steps": 20}, progress_callback=tell)

async def tell(progress, total, message):
    print(message, flush=True)

asyncio.run(main())
"""


def kill_a_client_once_it_is_told(message: str, url: str, gate: Gate) -> None:
    """message: a regular expression."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, f"{url}/mcp"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert any(re.fullmatch(message, line.strip()) for line in process.stdout)
        gate.wait()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_client_killed_in_mid_step_stops_its_job_within_that_step(
    tiny_queue: Queue, gate: Gate, started: list[Subscription]
) -> None:
    with mcp_over(tiny_queue) as (url, _):
        kill_a_client_once_it_is_told(r"step \d of 20", url, gate)
        assert stopped_in_that_step(gate, started[0])
        assert begin(tiny_queue, TINY).result().phase == "finished"


def test_a_client_killed_while_it_waits_leaves_the_line(
    tiny_queue: Queue, gate: Gate, started: list[Subscription]
) -> None:
    first = begin(tiny_queue, TINY)
    gate.wait()
    with mcp_over(tiny_queue) as (url, _):
        kill_a_client_once_it_is_told("waiting, 1 ahead", url, gate)
        assert started[1].result().phase == "stopped"
    assert not first.latest.last
    gate.open()
    assert first.result().phase == "finished"


def test_two_calls_of_one_client_are_drawn_one_after_the_other(tiny_queue: Queue, gate: Gate) -> None:
    told: list[str | None] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)
        if message == "waiting, 1 ahead":
            gate.open()

    async def run(url: str) -> list[str]:
        async with connected(url) as session:
            first = await call_in_mid_step(session, gate)
            second = session.call_tool("draw", TINY | {"seed": 5}, progress_callback=tell)
            return [words(result) for result in await asyncio.gather(first, second)]

    with mcp_over(tiny_queue) as (url, _):
        _, second = asyncio.run(run(url))
    assert '"seed": 5' in second
    assert told[-1] == "step 20 of 20"


def test_a_job_that_somebody_else_stopped_is_answered_in_words(
    tiny_queue: Queue, gate: Gate, started: list[Subscription]
) -> None:
    async def run(url: str) -> Any:
        async with connected(url) as session:
            calling = await call_in_mid_step(session, gate)
            started[0].stop()
            gate.open()
            return await calling

    with mcp_over(tiny_queue) as (url, _):
        result = asyncio.run(run(url))
    assert result.isError
    assert words(result) == f"The drawing was stopped at step {HELD} of 20."


def test_a_client_that_left_before_its_job_began_is_noticed() -> None:
    visit, told = Visit(), []
    visit.on_leaving(lambda: told.append("first"))
    visit.leave()
    visit.on_leaving(lambda: told.append("second"))
    assert told == ["first", "second"]


def test_two_hundred_abandoned_sessions_end_when_they_have_been_idle(tiny_queue: Queue) -> None:
    with mcp_over(tiny_queue, idle=0.5, share=200) as (url, app):
        with httpx.Client(timeout=TIMEOUT) as http:
            for _ in range(200):
                answer = initialize(url, http=http)
        session = answer.headers["mcp-session-id"]
        until(lambda: not app._transport._sdk._server_instances)
        gone = initialize(url, **{"Mcp-Session-Id": session})
        assert gone.status_code == 404  # what makes a client begin another session
        assert initialize(url).status_code == 200
