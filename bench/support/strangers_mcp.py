"""Ten thousand MCP sessions opened from one address: does a second address still get in, and draw? A section
of `bench.strangers`.

The second address opens a session, lists the models and ends the session, over and over, and draws now and
then, for as long as the first one floods; the sessions of both end with the server.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.support.served import Served
from bench.support.table import percentile, scratch, table

AT_ONCE = 8
"""Requests of the flood at the same time."""
DRAW_EVERY = 20
"""Sessions of the second address to one drawing."""
STEPS, SIZE = 8, 128
FLOODING, SECOND = "127.0.0.1", "127.0.0.2"
HEADERS = {"Accept": "application/json, text/event-stream"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    },
}


HOW = (
    f"{AT_ONCE} `initialize` at a time from {FLOODING}; one client at {SECOND}, every {DRAW_EVERY}th of "
    f"whose sessions draws: sketch on the CPU, {STEPS} steps, {SIZE}². STEPWISE_WORKERS=1, no rate limit. No "
    "session of the flood is ended by its client.\n\n"
)


@dataclass
class Found:
    """What a flood did. opened: the answers to the first address, by HTTP status. memory: bytes of RSS before
    and after. seconds: of the flood. began, listed, drew: the second address's calls that were answered with
    what was asked, each in seconds. refused: its calls that were not."""

    opened: Counter[int] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0
    began: list[float] = field(default_factory=list)
    listed: list[float] = field(default_factory=list)
    drew: list[float] = field(default_factory=list)
    refused: int = 0


class Flood:
    """The requests of both addresses to one server."""

    def __init__(self, url: str, pid: int, sessions: int) -> None:
        self.found = Found()
        self._url, self._pid, self._sessions = url, pid, sessions

    async def run(self) -> None:
        async with self._client(FLOODING) as self._first, self._client(SECOND) as self._second:
            await self._visit(draws=True)  # what the first drawing loads isn't growth
            self.found = Found(memory=[self._rss()])
            began, numbers = time.monotonic(), iter(range(self._sessions))
            flood = asyncio.gather(*(self._flood(numbers) for _ in range(AT_ONCE)))
            visits = 0
            while not flood.done():
                await self._visit(draws=visits % DRAW_EVERY == 0)
                visits += 1
            await flood
            self.found.seconds = time.monotonic() - began
            self.found.memory.append(self._rss())

    def _client(self, address: str) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(
            local_address=address, limits=httpx.Limits(max_connections=AT_ONCE)
        )
        return httpx.AsyncClient(base_url=self._url, headers=HEADERS, timeout=120, transport=transport)

    async def _flood(self, numbers: Any) -> None:
        for _ in numbers:
            answer = await self._first.post("/mcp", json=INITIALIZE)
            self.found.opened[answer.status_code] += 1

    async def _visit(self, draws: bool) -> None:
        """One session of the second address, from its beginning to its end."""
        began = await self._timed(self.found.began, self._second.post("/mcp", json=INITIALIZE))
        if began is None:
            return
        named = {"Mcp-Session-Id": began.headers["mcp-session-id"]}
        await self._timed(self.found.listed, self._call(named, "list_models"))
        if draws:
            drawing = {
                "prompt": "a red apple",
                "model": "sketch",
                "steps": STEPS,
                "width": SIZE,
                "height": SIZE,
            }
            await self._timed(self.found.drew, self._call(named, "draw", **drawing))
        await self._second.delete("/mcp", headers=named)

    def _call(self, named: dict[str, str], tool: str, **arguments: Any) -> Awaitable[httpx.Response]:
        params = {"name": tool, "arguments": arguments}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return self._second.post("/mcp", json=message, headers=named)

    async def _timed(self, seconds: list[float], asked: Awaitable[httpx.Response]) -> httpx.Response | None:
        """The answer; None, and counted, where it is a refusal."""
        began = time.monotonic()
        answer = await asked
        if answer.status_code != 200 or '"error":' in answer.text or '"isError":true' in answer.text:
            self.found.refused += 1
            return None
        seconds.append(time.monotonic() - began)
        return answer

    def _rss(self) -> int:
        return psutil.Process(self._pid).memory_info().rss


def mcp_flood(sessions: int, folder: Path) -> Found:
    """One server's flood. folder: for its log, jobs and pictures."""
    served = Served(folder, STEPWISE_WORKERS="1", STEPWISE_RATE="")
    try:
        served.start()
        assert served.process is not None
        flood = Flood(served.url, served.process.pid, sessions)

        async def run() -> None:
            async with httpx.AsyncClient() as http:
                await served.answering(http)
            await flood.run()

        asyncio.run(run())
        return flood.found
    finally:
        served.kill()


def section(sessions: int = 10_000) -> str:
    """The table of one flood with so many sessions."""
    with scratch() as folder:
        found = mcp_flood(sessions, folder)
    before, after = found.memory
    calls = sum(map(len, (found.began, found.listed, found.drew)))
    answers = ", ".join(f"{number:,} × {status}" for status, number in sorted(found.opened.items()))
    return HOW + table(
        "A flood of MCP sessions",
        [
            ("", "found"),
            ("`initialize` from one address, by HTTP status", answers),
            ("seconds of the flood", f"{found.seconds:,.0f}"),
            ("memory of the server, before and after", f"{before / 1e6:,.0f} MB, {after / 1e6:,.0f} MB"),
            ("the second address's calls meanwhile", f"{calls:,}"),
            ("of them refused", f"{found.refused:,}"),
            ("it opens a session", _seconds(found.began)),
            ("it lists the models", _seconds(found.listed)),
            ("it draws", _seconds(found.drew)),
        ],
    )


def _seconds(values: list[float]) -> str:
    if not values:
        return "never"
    return f"median {statistics.median(values):.3f} s, 95 % within {percentile(values, 0.95):.3f} s"
