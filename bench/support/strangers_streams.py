"""Streams that nobody reads: how much memory do strangers cost the server by asking and never reading?

A section of `bench.strangers`. First /job, which goes through a drawing from its start, is joined many times
for one that has ended; then some sessions join the page's own event for one that is being drawn, whose frames
have the previews in them. Nobody reads any of it. Meanwhile a visitor from another address draws, and reads.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.support.rest import Disconnected, Refused, ask, follow
from bench.support.served import Served
from bench.support.table import table

JOINS, SESSIONS, EACH = 700, 3, 100
"""Joins for the drawing that has ended; sessions that don't read while it draws, and the joins of each."""
AT_ONCE = 20
"""Requests at the same time."""
VISITOR = "127.0.0.2"
"""Another address of this machine: another person to the server."""
SMALL = {"prompt": "a red apple", "model": "sketch", "steps": 60, "width": 128, "height": 128}
LONG = SMALL | {"images": 4}
LARGE = SMALL | {"steps": 30, "width": 512, "height": 512, "images": 2}
JOBS = ("stepwise_jobs_waiting", "stepwise_jobs_running")
LOOK = 0.2
"""Seconds between two looks at the memory."""


@dataclass
class Unread:
    """What one kind of unread streams costs. answers: to the requests, by HTTP status. before, most, after:
    bytes of the server's RSS, `most` while it went on. visitor: how the visitor's drawing ended, in words."""

    answers: Counter[int] = field(default_factory=Counter)
    before: int = 0
    most: int = 0
    after: int = 0
    visitor: str = ""


class Strangers:
    """The requests against one server."""

    def __init__(self, url: str, pid: int) -> None:
        self._url, self._server = url, psutil.Process(pid)

    async def run(self, joins: int, sessions: int, each: int) -> dict[str, Unread]:
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(base_url=self._url, timeout=600, limits=limits) as self._http:
            config = (await self._http.get("/config")).json()
            self._fn = {one["api_name"]: one["id"] for one in config["dependencies"]}
            job = str(uuid.uuid4())
            await self._draw(self._http, LONG | {"job": job})  # what the first one loads isn't growth
            return {
                f"{joins} joins of one drawing that has ended": await self._watch(
                    self._join_ended(job, joins)
                ),
                f"{sessions} sessions with {each} joins each of one that is drawn": await self._watch(
                    self._join_running(sessions, each)
                ),
            }

    async def _watch(self, attack: Any) -> Unread:
        found = Unread(before=self._memory())
        found.most = found.before
        attacking = asyncio.create_task(attack)
        visiting = asyncio.create_task(self._visit())
        while not (attacking.done() and visiting.done()):
            found.most = max(found.most, self._memory())
            await asyncio.sleep(LOOK)
        found.answers, found.visitor = attacking.result(), visiting.result()
        found.after = self._memory()
        found.most = max(found.most, found.after)
        return found

    async def _join_ended(self, job: str, joins: int) -> Counter[int]:
        answers: Counter[int] = Counter()
        numbers = iter(range(joins))

        async def some() -> None:
            for _ in numbers:
                answers[await self._join("stranger", "job", {"data": [job]})] += 1

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        await self._over()
        return answers

    async def _join_running(self, sessions: int, each: int) -> Counter[int]:
        answers: Counter[int] = Counter()
        job = str(uuid.uuid4())
        await ask(self._http, self._url, "generate", LARGE | {"job": job})
        for number in range(each * sessions):
            values = {"data": [], "event_data": {"job": job}}
            answers[await self._join(f"stranger {number % sessions}", "resume", values)] += 1
        await self._over()
        return answers

    async def _join(self, session: str, endpoint: str, values: dict[str, Any]) -> int:
        body = values | {"fn_index": self._fn[endpoint], "session_hash": session}
        return (await self._http.post("/gradio_api/queue/join", json=body)).status_code

    async def _over(self) -> None:
        """Until nothing waits or is drawn, for two looks a second apart."""
        quiet = 0
        while quiet < 2:
            metrics = (await self._http.get("/metrics")).text
            jobs = [line for line in metrics.splitlines() if line.startswith(JOBS)]
            quiet = quiet + 1 if all(line.endswith(" 0.0") for line in jobs) else 0
            await asyncio.sleep(1)

    async def _visit(self) -> str:
        transport = httpx.AsyncHTTPTransport(local_address=VISITOR)
        began = time.monotonic()
        try:
            async with httpx.AsyncClient(base_url=self._url, timeout=600, transport=transport) as http:
                steps = await self._draw(http, SMALL)
        except (Refused, Disconnected, httpx.HTTPError) as error:
            return f"not finished: {error!r}"
        return f"finished, {steps} of {SMALL['steps']} steps seen, after {time.monotonic() - began:.1f} s"

    async def _draw(self, http: httpx.AsyncClient, values: dict[str, Any]) -> int:
        seen, info = set(), {}
        async for _, info in follow(http, self._url, "generate", values):
            seen.add(info.get("step"))
        if info.get("phase") != "finished":
            raise Refused(f"{info.get('phase')}: {info.get('error')}")
        return len(seen - {None, 0})

    def _memory(self) -> int:
        return self._server.memory_info().rss


def measure(
    folder: Path, joins: int = JOINS, sessions: int = SESSIONS, each: int = EACH
) -> dict[str, Unread]:
    """What unread streams cost the app, by what was asked; folder: for its log, jobs and pictures."""
    served = Served(folder, STEPWISE_WORKERS="1", STEPWISE_RATE="")
    try:
        served.start()
        assert served.process is not None
        return asyncio.run(_measured(served, joins, sessions, each))
    finally:
        served.kill()


async def _measured(served: Served, joins: int, sessions: int, each: int) -> dict[str, Unread]:
    async with httpx.AsyncClient() as http:
        await served.answering(http)
    assert served.process is not None
    return await Strangers(served.url, served.process.pid).run(joins, sessions, each)


def report(found: dict[str, Unread]) -> str:
    rows: list[tuple[str, ...]] = [("", "answers", "RSS before", "at most", "after", "a visitor's drawing")]
    for name, one in found.items():
        answers = ", ".join(f"{number:,} × {status}" for status, number in sorted(one.answers.items()))
        grown = [
            f"{bytes / 1e6:,.0f} MB ({(bytes - one.before) / 1e6:+,.0f})" for bytes in (one.most, one.after)
        ]
        rows.append((name, answers, f"{one.before / 1e6:,.0f} MB", *grown, one.visitor))
    return table("Streams that nobody reads", rows)
