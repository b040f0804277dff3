"""Ten thousand sessions, and callers that join and cancel at once: who still draws afterwards?

    python -m bench.flood

The same requests go to the app and to a plain Gradio app around the same model: each session asks for a
drawing over REST and never reads the answer, then others join Gradio's queue and cancel at once. Then one
client asks for a drawing as usual, and waits for it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.support.comparison import parse_or_compare
from bench.support.rest import Disconnected, Refused, follow
from bench.support.served import Served, Start
from bench.support.table import command_line, scratch, server, setting, table

AT_ONCE = 40
"""Requests at the same time."""
STEPS, SIZE = 8, 128
DEAD = 20
"""Refusals with 503 in a row after which a server's queue counts as dead, and the flood ends."""
LATE = 300.0
"""Seconds in which the drawing after the flood must have come."""


@dataclass
class Flooded:
    """What a server made of it. joined, cancelled: its answers, by HTTP status; 0: the connection broke.
    memory: bytes of RSS before the flood and after each. dispatched: how the drawing after the last ended, in
    words. died: after how many sessions the queue refused everything; None: it didn't."""

    joined: Counter[int] = field(default_factory=Counter)
    cancelled: Counter[int] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    dispatched: str = ""
    died: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Target:
    """A server to flood. call: its REST route; values: of that call's body; data: the same as Gradio's queue
    takes it."""

    url: str
    pid: int
    call: str
    values: dict[str, Any]
    data: list[Any]


class Flood:
    """The requests against one server."""

    def __init__(self, target: Target) -> None:
        self.flooded = Flooded()
        self._target = target
        self._refused = 0

    async def run(self, sessions: int, cancels: int, floods: int) -> None:
        limits = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(base_url=self._target.url, timeout=120, limits=limits) as self._http:
            config = (await self._http.get("/config")).json()
            self._fn = next(one["id"] for one in config["dependencies"] if one["api_name"] == "generate")
            await self._draw()  # what the first drawing loads isn't growth
            self.flooded.memory.append(self._memory())
            for _ in range(floods):
                began = time.monotonic()
                await self._many(sessions, self._ask, self.flooded.joined)
                if self.flooded.died is None:
                    await self._many(cancels, self._join_and_cancel, self.flooded.cancelled)
                self.flooded.seconds += time.monotonic() - began
                self.flooded.dispatched = await self._draw_after()
                self.flooded.memory.append(self._memory())

    async def _many(
        self, times: int, one: Callable[[], Coroutine[Any, Any, int]], answers: Counter[int]
    ) -> None:
        numbers = iter(range(times))

        async def some() -> None:
            for number in numbers:
                if self.flooded.died is not None:
                    return
                try:
                    answers[await one()] += 1
                except httpx.TransportError:
                    answers[0] += 1
                if number and number % 1000 == 0:
                    print(f"{one.__name__}: {number:,}", file=sys.stderr, flush=True)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def _ask(self) -> int:
        """A session of its own that never reads its answer."""
        answer = await self._http.post(self._target.call, json=self._target.values)
        self._refused = self._refused + 1 if answer.status_code == 503 else 0
        if self._refused >= DEAD:
            self.flooded.died = sum(self.flooded.joined.values()) + 1 - DEAD
        return answer.status_code

    async def _join_and_cancel(self) -> int:
        session = uuid.uuid4().hex
        body = {"data": self._target.data, "fn_index": self._fn, "session_hash": session}
        answer = await self._http.post("/gradio_api/queue/join", json=body)
        if answer.status_code != 200:
            return answer.status_code
        body = {"session_hash": session, "fn_index": self._fn, "event_id": answer.json()["event_id"]}
        return (await self._http.post("/gradio_api/cancel", json=body)).status_code

    async def _draw_after(self) -> str:
        began = time.monotonic()
        refusal = ""
        while time.monotonic() - began < LATE:
            try:
                await asyncio.wait_for(self._draw(), LATE)
                return f"finished, after {time.monotonic() - began:.1f} s"
            except Refused as error:
                refusal = str(error)
                if self.flooded.died is not None:
                    break
                await asyncio.sleep(1)  # it is full still
            except (Disconnected, httpx.HTTPError, TimeoutError) as error:
                return f"not finished: {error!r}"
        return f"refused: {refusal}"

    async def _draw(self) -> None:
        endpoint = self._target.call.removeprefix("/gradio_api/call/").removeprefix("v2/")
        v2 = "/v2/" in self._target.call
        phase = error = None
        async for _, info in follow(self._http, self._target.url, endpoint, self._target.values, v2):
            phase, error = info.get("phase"), info.get("error")  # a plain app's picture has neither
        if phase not in (None, "finished"):
            raise Refused(f"{phase}: {error}")

    def _memory(self) -> int:
        return psutil.Process(self._target.pid).memory_info().rss


def flood(target: Target, sessions: int, cancels: int, floods: int = 1) -> Flooded:
    """One server's flood, so many times in a row as long as it lives."""
    flooding = Flood(target)
    asyncio.run(flooding.run(sessions, cancels, floods))
    return flooding.flooded


def flood_the_app(
    sessions: int, cancels: int, folder: Path, floods: int = 1, start: Start | None = None
) -> Flooded:
    """The app's; folder: for its log, jobs and pictures. start: as of Served."""
    served = Served(folder, start=start, STEPWISE_WORKERS="1", STEPWISE_RATE="")
    try:
        served.start()
        asyncio.run(_ready(served))
        assert served.process is not None
        values = {"prompt": "a red apple", "model": "sketch", "steps": STEPS, "width": SIZE, "height": SIZE}
        data = ["a red apple", "sketch", None, SIZE, SIZE, STEPS, None, None, None, None]
        target = Target(served.url, served.process.pid, "/gradio_api/call/v2/generate", values, data)
        return flood(target, sessions, cancels, floods)
    finally:
        served.kill()


async def _ready(served: Served) -> None:
    async with httpx.AsyncClient() as http:
        await served.answering(http)


def flood_plain(sessions: int, cancels: int) -> Flooded:
    """A plain Gradio app's."""
    data = ["a red apple", 1, STEPS, SIZE]
    with server("-m", "bench.support.plain_app") as (url, process, _):
        target = Target(url, process.pid, "/gradio_api/call/generate", {"data": data}, data)
        return flood(target, sessions, cancels)


def report(found: dict[str, Flooded]) -> str:
    rows: list[tuple[str, ...]] = [("", *found)]

    def row(name: str, words: Callable[[Flooded], str]) -> None:
        rows.append((name, *(words(one) for one in found.values())))

    row("sessions' requests, by HTTP status", lambda one: _counts(one.joined))
    row("joined and cancelled, by HTTP status", lambda one: _counts(one.cancelled))
    row("the queue died", lambda one: "no" if one.died is None else f"after {one.died:,} sessions")
    row("seconds of the flood", lambda one: f"{one.seconds:,.0f}")
    row("the drawing afterwards", lambda one: one.dispatched)
    row("memory of the server, before and after each", _memory)
    return table("A flood of sessions", rows)


def _memory(one: Flooded) -> str:
    before, *after = one.memory
    return f"{before / 1e6:,.0f} MB, " + ", ".join(
        f"{memory / 1e6:,.0f} MB ({(memory / before - 1) * 100:+.1f} %)" for memory in after
    )


def _counts(answers: Counter[int]) -> str:
    return (
        ", ".join(f"{number:,} × {status or 'broken'}" for status, number in sorted(answers.items())) or "–"
    )


def main() -> None:
    parser = command_line("flood", __doc__)
    parser.add_argument("--sessions", type=int, default=10_000, help="different ones (default 10,000)")
    parser.add_argument("--cancels", type=int, default=2_500, help="joins with a cancel (default 2,500)")
    parser.add_argument("--floods", type=int, default=2, help="of the app, one after the other (default 2)")
    parser.add_argument(
        "--plain", action=argparse.BooleanOptionalAction, default=True, help="also a plain app"
    )
    asked = parse_or_compare(parser)
    print(
        setting(
            f"Sketch on the CPU, {STEPS} steps, {SIZE}²; {AT_ONCE} requests at a time, all from one address, "
            "of whose drawings the app lets 20 wait and refuses the others within their calls; "
            "STEPWISE_WORKERS=1, no rate limit. The plain app has Gradio's defaults."
        ),
        flush=True,
    )
    found = {"plain Gradio app": flood_plain(asked.sessions, asked.cancels)} if asked.plain else {}
    with scratch() as folder:
        found["Stepwise"] = flood_the_app(asked.sessions, asked.cancels, folder, asked.floods)
    print(report(found))


if __name__ == "__main__":
    main()
