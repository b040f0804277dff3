"""The server as it runs on a machine with a GPU, `python app.py` with a worker process, over HTTP: what the
worker costs beside a server that draws by itself, and what becomes of a drawing whose worker is killed, loses
its GPU or hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import torch
from PIL import Image

from bench.fullsize import drive
from bench.support.rest import ask, fetch, follow
from bench.support.served import Served
from bench.support.table import scratch

PARTS = ("worker", "this process")
DRAWINGS = 3
"""Whole drawings that are timed, after one that isn't."""
STOPS = 5
PATIENCE = 40.0
"""STEPWISE_MAX_DRAW: seconds from the beginning of a drawing after which one that hangs is ended."""
GONE = 10.0
"""Seconds for which is looked whether a process and its memory have gone."""

Result = tuple[str, dict[str, Any]]
Do = Callable[[str], Awaitable[None]]

LOSE_THE_GPU = """
import os, sys, threading, time
from pathlib import Path

def watch():
    gate = Path({gate!r} + str(os.getpid()))
    while not gate.exists():
        time.sleep(0.005)
    import torch
    torch.zeros(1, device="cuda")[torch.tensor([9], device="cuda")]

if "jobs.workers.worker" in sys.orig_argv:
    threading.Thread(target=watch, daemon=True).start()
"""
"""A worker's sitecustomize: when that file is there, with its process id at the end of its name, an index out
of range, which the GPU asserts against."""


@dataclass
class Seen:
    """A drawing as its client saw it, in seconds from the request. first: event; steps: (image's step, when)
    of each that was seen; acted: when something was done to it; again: the first step after a new beginning;
    ended: the last event, info."""

    first: float = 0.0
    steps: list[tuple[int, float]] = field(default_factory=list)
    acted: float | None = None
    again: float | None = None
    ended: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    picture: bytes = b""

    @property
    def step(self) -> float | None:
        """Seconds a step, from the first that was seen to the last."""
        pairs = [(after - before) / (b - a) for (a, before), (b, after) in pairwise(self.steps) if b > a]
        return median(pairs) if pairs else None

    def outcome(self) -> dict[str, Any]:
        found = {key: self.info[key] for key in ("phase", "code", "error") if self.info.get(key)}
        if self.acted is not None:
            found["to its end"] = self.ended - self.acted
            found["to its next step"] = None if self.again is None else self.again - self.acted
        return found


def workers(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """The first of the models. part: who draws."""
    model = drive.ids(drive.catalogue(folder, only))[0]
    with scratch() as data:
        gate = data / "gate"
        (data / "sitecustomize.py").write_text(LOSE_THE_GPU.format(gate=str(gate)), encoding="utf-8")
        paths = os.pathsep.join(filter(None, [str(data), os.environ.get("PYTHONPATH")]))
        settings = {"STEPWISE_WORKERS": "0"} if part == "this process" else {}
        if part == "worker" and not torch.cuda.is_available():
            settings = {"STEPWISE_WORKERS": "1"}
        served = Served(
            data,
            PYTHONPATH=paths,
            STEPWISE_MODELS=str(folder / "models.yaml"),
            STEPWISE_PRELOAD=model,
            STEPWISE_MAX_DRAW=str(PATIENCE),
            **settings,
        )
        try:
            measured = _Measured(served, model, gate)
            steps = measured.worker() if part == "worker" else measured.usual(part)
            with contextlib.closing(asyncio.new_event_loop()) as loop:  # the client's connections are its
                while (found := loop.run_until_complete(anext(steps, None))) is not None:
                    yield found
        finally:
            served.kill()


class _Measured:
    """One server, from its start to its end."""

    def __init__(self, served: Served, model: str, gate: Path) -> None:
        self._served, self._model, self._gate = served, model, gate
        self._http = httpx.AsyncClient(timeout=120)

    async def usual(self, part: str) -> AsyncIterator[Result]:
        """Start, memory and undisturbed drawings."""
        began = time.monotonic()
        self._served.start()
        await self._served.answering(self._http)
        found: dict[str, Any] = {"model": self._model, "ready": time.monotonic() - began}
        whole = [await self._draw(number) for number in range(DRAWINGS + 1)][1:]
        found["first event"] = median(one.first for one in whole)
        found["step"] = median(one.step or 0.0 for one in whole)
        found["whole"] = median(one.ended for one in whole)
        found["memory"] = self._memory()
        metrics = (await self._http.get(f"{self._served.url}/metrics")).text
        found["metrics"] = [line for line in metrics.splitlines() if line.startswith("stepwise_gpu_memory")]
        self._picture = whole[0].picture
        yield part, found

    async def worker(self) -> AsyncIterator[Result]:
        async for found in self.usual("worker"):
            yield found
        yield "stop", await self._stops()
        for name, do in (("killed", self._kill), ("GPU lost", self._lose), ("hung", self._freeze)):
            if name == "GPU lost" and not torch.cuda.is_available():
                yield name, {"skipped": "needs a CUDA GPU to lose."}
                continue
            seen = await self._draw(1, do)
            found = seen.outcome()
            if seen.picture:
                found["same pixels"] = _pixels(seen.picture) == _pixels(self._picture)
            yield name, found
            await self._served.answering(self._http)
        following = await self._draw(1)
        same = bool(following.picture) and _pixels(following.picture) == _pixels(self._picture)
        yield "afterwards", {**following.outcome(), "same pixels": same, "memory": self._memory()}
        worker, before = self._worker(), _used()
        self._served.kill()
        began = time.monotonic()
        with contextlib.suppress(psutil.TimeoutExpired):
            worker.wait(GONE)
        found = {"worker gone": time.monotonic() - began, "lives": _lives(worker), "before": before}
        while before is not None and (left := _used()) > before / 10 and time.monotonic() - began < GONE:
            await asyncio.sleep(0.1)
        found |= {"GPU free": time.monotonic() - began, "after": None if before is None else left}
        yield "server killed", found

    async def _stops(self) -> dict[str, Any]:
        seen = [await self._draw(10 + number, self._stop, number / STOPS) for number in range(STOPS)]
        took = [one.ended - (one.acted or 0.0) for one in seen]
        return {
            "times": STOPS,
            "ended": [one.info["phase"] for one in seen],
            "median": median(took),
            "max": max(took),
        }

    async def _draw(self, number: int, do: Do | None = None, at: float = 0.5) -> Seen:
        """A drawing of its own prompt and id, seen to its end. do: called once with the job's id, when this
        part of its steps is done."""
        job, seen, acting = str(uuid.uuid4()), Seen(), None
        pictures: list[dict[str, Any]] = []
        values = {"prompt": f"{drive.PROMPT}, {number}", "model": self._model, "seed": drive.SEED, "job": job}
        began, before = time.monotonic(), 0
        async for shown, info in follow(self._http, self._served.url, "generate", values):
            now = time.monotonic() - began
            seen.first = seen.first or now
            if info["phase"] == "denoising" and info["step"]:
                seen.steps.append((info["step"], now))
                if seen.again is None and acting and info["step"] < before:
                    seen.again = now
                before = info["step"]
                if do and not acting and info["step"] >= max(1, at * info["steps"]):
                    seen.acted, acting = now, asyncio.create_task(do(job))
            pictures, seen.info, seen.ended = shown, info, now
        if acting:
            await acting
        if pictures and seen.info["phase"] == "finished":
            seen.picture = await fetch(self._http, pictures[0])
        return seen

    async def _stop(self, job: str) -> None:
        await ask(self._http, self._served.url, "stop", {"job": job})

    async def _kill(self, job: str) -> None:
        self._worker().kill()

    async def _lose(self, job: str) -> None:
        self._gate.with_name(f"{self._gate.name}{self._worker().pid}").touch()

    async def _freeze(self, job: str) -> None:
        self._worker().suspend()

    def _worker(self) -> psutil.Process:
        worker = self._served.worker()
        assert worker is not None
        return worker

    def _memory(self) -> dict[str, list[int | None]]:
        """What each process takes: bytes of the GPU, contexts included (None: there is no GPU), and of the
        host, as far as no other process shares them."""
        assert self._served.process is not None
        taken, processes = _taken(), [psutil.Process(self._served.process.pid), *self._served.workers()]
        return {
            name: [None if taken is None else taken.get(one.pid, 0), one.memory_full_info().uss]
            for name, one in zip(("server", "worker", "spare"), processes)
        }


def _taken() -> dict[int, int] | None:
    """Bytes of GPU memory by process, as the driver counts them; None: there is no GPU."""
    lines = _nvidia_smi("--query-compute-apps=pid,used_memory")
    return None if lines is None else {int(pid): int(size) * 2**20 for pid, size in lines}


def _used() -> int | None:
    """Bytes of all GPUs' memory that are in use."""
    lines = _nvidia_smi("--query-gpu=memory.used")
    return None if lines is None else sum(int(size) * 2**20 for (size,) in lines)


def _nvidia_smi(query: str) -> list[list[str]] | None:
    if not torch.cuda.is_available():
        return None
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split(", ") for line in said.splitlines() if line]


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _pixels(picture: bytes) -> bytes:
    with Image.open(io.BytesIO(picture)) as image:
        return image.convert("RGB").tobytes()
