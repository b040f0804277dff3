"""What the queue costs when nobody is there, and how soon it answers when somebody comes.

    python -m bench.waking

1. From a request to its first event, and to the first that says it is being drawn: through the store in this
process, beside the engine alone, and over HTTP. 2. CPU of the server and of its worker process over 30 s
without clients, and how often their threads wake, which other work on the machine doesn't change.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from bench.support.comparison import parse_or_compare
from bench.support.rest import follow
from bench.support.served import Served
from bench.support.table import ROOT, command_line, percentile, scratch, setting, table

REQUEST = {"prompt": "a red apple", "model": "sketch", "steps": 4, "width": 128, "height": 128, "seed": 1}
IDLE = 30.0
"""Seconds."""
SETTLING = 5.0
"""Seconds after the last drawing before anything counts as idle."""
WAITS = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)", re.MULTILINE)


def in_process(times: int, folder: Path) -> dict[str, list[float]]:
    """Seconds from `start` of a job to its first event, and to its first of the device's, one job at a time;
    the latter also of the engine alone, without a store."""
    from jobs.data_dir.folder import DataFolder
    from jobs.limits import Limits
    from jobs.queue import Queue
    from jobs.store.models import Owner
    from jobs.workers.executors import executors
    from pipeline.engine import EngineSpec

    engine = EngineSpec(ROOT / "models.yaml").engine()
    queue = Queue(engine, DataFolder(folder), executors(engine), Limits())
    seconds: dict[str, list[float]] = {"first": [], "begun": [], "engine": []}

    def until_begun(began: float, drawing: Any) -> float:
        found = 0.0
        for event in drawing.events():
            if event.phase != "queued" and not found:
                found = time.perf_counter() - began
        return found

    for number in range(times + 1):
        began = time.perf_counter()
        following = queue.start(engine.check(REQUEST), Owner("address:first"), "detached")
        events = iter(following.events())
        next(events)
        first = time.perf_counter() - began
        begun = until_begun(began, following)
        began = time.perf_counter()
        alone = until_begun(began, engine.start(engine.check(REQUEST)))
        if number:  # the first one loads the model
            seconds["first"].append(first)
            seconds["begun"].append(begun)
            seconds["engine"].append(alone)
    queue.close()
    return seconds


@dataclass(frozen=True)
class Rest:
    """What a process did at rest. cpu: percent of one core; wakings: of all its threads, a second."""

    cpu: float
    wakings: float


async def over_http(served: Served, times: int) -> tuple[dict[str, Rest], list[float]]:
    """What each process does without clients, and seconds to the first event of each of so many requests."""
    async with httpx.AsyncClient(timeout=120) as http:
        await served.answering(http)
        seconds = []
        for number in range(times + 1):
            began, first = time.perf_counter(), 0.0
            async for _ in follow(http, served.url, "generate", REQUEST):
                first = first or time.perf_counter() - began
            if number:
                seconds.append(first)
    await asyncio.sleep(SETTLING)
    worker, server = served.worker(), served.process
    assert worker is not None and server is not None
    processes = {"server": psutil.Process(server.pid), "worker": worker}
    before = {name: (_cpu(process), _wakings(process)) for name, process in processes.items()}
    await asyncio.sleep(IDLE)
    found = {}
    for name, process in processes.items():
        cpu, wakings = before[name]
        found[name] = Rest((_cpu(process) - cpu) / IDLE * 100, (_wakings(process) - wakings) / IDLE)
    return found, seconds


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _wakings(process: psutil.Process) -> int:
    """How often its threads have waited for something (Linux; 0 elsewhere)."""
    found = 0
    for thread in Path(f"/proc/{process.pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # it has just ended
            found += int(
                re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", thread.read_text(), re.MULTILINE)[0]
            )
    return found


def _spread(seconds: list[float]) -> tuple[str, str]:
    return f"{1e3 * median(seconds):.1f} ms", f"{1e3 * percentile(seconds, 0.95):.1f} ms"


def main() -> None:
    parser = command_line("waking", __doc__)
    parser.add_argument("--times", type=int, default=40, help="drawings of each kind (default 40)")
    asked = parse_or_compare(parser)
    print(setting("Sketch on the CPU, 4 steps, 128², one job at a time; STEPWISE_WORKERS=1."), flush=True)
    with scratch() as folder:
        inside = in_process(asked.times, folder)
    with scratch() as folder:
        served = Served(folder, STEPWISE_WORKERS="1")
        try:
            served.start()
            idle, http = asyncio.run(over_http(served, asked.times))
        finally:
            served.kill()
    rows = [
        ("", "p50", "p95"),
        ("in this process, through the store: to the first event", *_spread(inside["first"])),
        ("the same, to the device's first event", *_spread(inside["begun"])),
        ("the engine alone, to the device's first event", *_spread(inside["engine"])),
        ("over HTTP (REST: a POST and a GET): to the first event", *_spread(http)),
    ]
    print(table("From a request", rows))
    rows = [("process", f"CPU of one core over {IDLE:.0f} s", "wakings a second")]
    rows += [(name, f"{rest.cpu:.2f} %", f"{rest.wakings:.1f}") for name, rest in idle.items()]
    print(table("At rest, no client", rows))


if __name__ == "__main__":
    main()
