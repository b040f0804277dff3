"""A server under a steady mixed load, for as long as one likes: does anything grow, does anything slow down?

    python -m bench.soak --minutes 30

Clients draw, stop, leave in the middle, ask for what is refused and for jobs that nobody knows, with pauses
between. Looked at every few seconds: memory, open files and threads of the server and its worker, and what
lies on disk. Told of the first and of the last third of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from bench.chaos import REQUESTS, SEED
from bench.support.rest import Disconnected, Refused, ask, fetch, follow
from bench.support.served import Served
from bench.support.table import command_line, percentile, scratch, setting, table

LOOK = 5.0
"""Seconds between two looks at the processes."""
KEPT = 0.01
"""GB of jobs that the server keeps (STEPWISE_KEEP_GB): so little that the bound is met within minutes."""
KINDS = {"draw": 60, "stop": 15, "leave": 15, "refused": 5, "unknown": 5}
"""What a client does next, in percent."""


@dataclass
class Look:
    """at: seconds from the start. memory: bytes (RSS); files, threads: numbers; each {process: figure}. data,
    pictures: bytes of the jobs' folder and of the files that Gradio serves."""

    at: float
    memory: dict[str, int]
    files: dict[str, int]
    threads: dict[str, int]
    data: int
    pictures: int


@dataclass
class Soaked:
    """What was seen. first: (at, seconds) from a request to its first event; drawn: (at, seconds) from a
    request to its finished picture. wrong: what shouldn't have been answered so."""

    looks: list[Look] = field(default_factory=list)
    first: list[tuple[float, float]] = field(default_factory=list)
    drawn: list[tuple[float, float]] = field(default_factory=list)
    did: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Soak:
    """One server and its clients."""

    def __init__(self, served: Served, seconds: float, pause: float, chance: random.Random) -> None:
        """pause: the longest one between two requests of a client, in seconds."""
        self.soaked = Soaked()
        self._served, self._seconds, self._pause, self._chance = served, seconds, pause, chance

    async def run(self, clients: int) -> None:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as http:
            self._http = http
            await self._served.answering(http)
            await self._one("draw")  # what the first drawing loads isn't growth
            self.soaked = Soaked()
            self._began = time.monotonic()
            tasks = [asyncio.create_task(self._client()) for _ in range(clients)]
            while self._now() < self._seconds:
                self.soaked.looks.append(self._look())
                await asyncio.sleep(LOOK)
            await asyncio.gather(*tasks)

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _client(self) -> None:
        while self._now() < self._seconds:
            (kind,) = self._chance.choices(list(KINDS), list(KINDS.values()))
            try:
                await self._one(kind)
            except (httpx.HTTPError, Disconnected, Refused) as error:
                self.soaked.wrong.append(f"{self._now():.0f} s, {kind}: {error!r}")
            self.soaked.did[kind] += 1
            await asyncio.sleep(self._chance.uniform(0, self._pause))

    async def _one(self, kind: str) -> None:
        request = dict(self._chance.choice(REQUESTS))
        if kind == "refused":
            with contextlib.suppress(Refused):
                await ask(self._http, self._served.url, "generate", request | {"width": -5})
                self.soaked.wrong.append("A width of -5 was taken.")
        elif kind == "unknown":
            async for _, info in self._events(
                "job", {"job": str(uuid.UUID(int=self._chance.getrandbits(128)))}
            ):
                if info["phase"] != "unknown":
                    self.soaked.wrong.append(f"An unknown job was {info['phase']}.")
        elif kind == "leave":
            async with contextlib.aclosing(self._events("generate", request)) as events:
                for _ in range(self._chance.randrange(1, 8)):
                    await anext(events, None)
        else:
            await self._draw(request, stops=kind == "stop")

    async def _draw(self, request: dict[str, Any], stops: bool) -> None:
        job = str(uuid.UUID(int=self._chance.getrandbits(128)))
        at, began = self._now() if self.soaked.looks else 0.0, time.monotonic()
        when, seen = self._chance.randrange(1, 8), 0
        async for event in self._events("generate", request | {"job": job}):
            seen, (pictures, info) = seen + 1, event
            if seen == 1:
                self.soaked.first.append((at, time.monotonic() - began))
            if stops and seen == when:
                async for _ in self._events("stop", {"job": job}):
                    pass
        if info["phase"] == "finished":
            await fetch(self._http, pictures[0])
            self.soaked.drawn.append((at, time.monotonic() - began))
        elif not stops or info["phase"] != "stopped":
            self.soaked.wrong.append(f"A drawing ended as {info['phase']}: {info.get('error')}")

    def _events(self, endpoint: str, values: dict[str, Any]) -> Any:
        return follow(self._http, self._served.url, endpoint, values)

    def _look(self) -> Look:
        assert self._served.process is not None
        processes = {"server": psutil.Process(self._served.process.pid), "worker": self._served.worker()}
        alive = {name: process for name, process in processes.items() if process is not None}
        return Look(
            self._now(),
            {name: process.memory_info().rss for name, process in alive.items()},
            {name: process.num_fds() for name, process in alive.items()},
            {name: process.num_threads() for name, process in alive.items()},
            _bytes(self._served.data),
            _bytes(self._served.data.parent / "gradio"),
        )


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def report(soaked: Soaked, seconds: float) -> str:
    """The first third of the time beside the last."""
    third = seconds / 3

    def thirds(samples: list[tuple[float, float]], over: Any, unit: str) -> tuple[str, str]:
        start = [value for at, value in samples if at < third]
        end = [value for at, value in samples if at >= 2 * third]
        a, b = (f"{round(over(part), 1):,} {unit}".strip() if part else "–" for part in (start, end))
        return a, b

    def p95(values: list[float]) -> float:
        return percentile(values, 0.95)

    looks, megabyte = soaked.looks, 10**6
    rows: list[tuple[str, ...]] = [("", "first third", "last third")]
    for name in ("server", "worker"):
        for what, scale, unit in (("memory", megabyte, "MB"), ("files", 1, ""), ("threads", 1, "")):
            samples = [
                (one.at, getattr(one, what)[name] / scale) for one in looks if name in getattr(one, what)
            ]
            rows.append((f"{name}: {what}, median", *thirds(samples, median, unit)))
    rows += [
        ("jobs' folder, largest", *thirds([(one.at, one.data / megabyte) for one in looks], max, "MB")),
        (
            "Gradio's pictures, largest",
            *thirds([(one.at, one.pictures / megabyte) for one in looks], max, "MB"),
        ),
        ("request to first event, p95", *thirds([(at, 1e3 * took) for at, took in soaked.first], p95, "ms")),
        ("request to finished picture, median", *thirds(soaked.drawn, median, "s")),
        ("request to finished picture, p95", *thirds(soaked.drawn, p95, "s")),
        ("finished pictures", *thirds(soaked.drawn, len, "")),
    ]
    did = ", ".join(f"{number} {kind}" for kind, number in soaked.did.items())
    lines = [f"\nDone: {did}. Answered otherwise than it should: {len(soaked.wrong)}."]
    return "\n".join([table(f"{seconds / 60:.0f} minutes", rows), *lines, *soaked.wrong[:20]])


def soak(seconds: float, clients: int, pause: float, folder: Path) -> Soaked:
    """One run; folder: for the server's log, jobs and pictures."""
    served = Served(folder, STEPWISE_WORKERS="1", STEPWISE_KEEP_GB=f"{KEPT}")
    soaking = Soak(served, seconds, pause, random.Random(SEED))
    try:
        served.start()
        asyncio.run(soaking.run(clients))
    finally:
        served.kill()
    return soaking.soaked


def main() -> None:
    parser = command_line("soak", __doc__)
    parser.add_argument("--minutes", type=float, default=30, help="how long (default 30)")
    parser.add_argument("--clients", type=int, default=2, help="at the same time (default 2)")
    parser.add_argument("--pause", type=float, default=4, help="the longest between requests (default 4 s)")
    asked = parser.parse_args()
    print(
        setting(
            f"Sketch on the CPU, 6 to 24 steps, 128² to 256², one worker process; {asked.clients} clients "
            f"with pauses of 0 to {asked.pause:g} s; at most {KEPT} GB of jobs are kept."
        ),
        flush=True,
    )
    with scratch() as folder:
        soaked = soak(60 * asked.minutes, asked.clients, asked.pause, folder)
    print(report(soaked, 60 * asked.minutes))


if __name__ == "__main__":
    main()
