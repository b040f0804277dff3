"""Stops jobs at random moments, in every phase, and looks at the device: is it ever given to two, and how
many steps does it still take?

    python -m bench.stops

The app's own queue in this process, on sketch; each job is stopped once, at a moment drawn from a fixed seed:
while it waits, before its first step, in the middle of one, while it is decoded.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any

from bench.support.comparison import parse_or_compare
from bench.support.table import ROOT, command_line, percentile, scratch, setting, table

SEED = 20261124
AT_ONCE = 4
"""Jobs at the same time: one is drawn, the others wait."""
SMALL = {"prompt": "a red apple", "model": "sketch", "width": 128, "height": 128, "steps": 8}
PHASES = ("queued", "encoding", "denoising", "decoding")
"""Where a stop is aimed at; the random moment after that may carry it into the next."""


@dataclass
class Stops:
    """What a run showed. at: in which phase each stop came; ended: how the jobs ended; steps: that ended
    after the drawing was told of a stop which came amid the steps, the running one included; seconds: from
    stop to end; most: threads that were in a network at the same time."""

    at: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    steps: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    most: int = 0


class Device:
    """Counts what runs on the device: networks at the same time, and each job's steps that have ended, those
    that did so after it was told to stop apart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on: Counter[str] = Counter()
        self._run: Any = None
        self.most = 0
        self.steps: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    @contextmanager
    def watched(self, engine: Any) -> Iterator[None]:
        """Within the block, every call of a transformer or a VAE in this process is counted, for the job that
        `engine` is drawing."""
        from diffusers import AutoencoderKL, SD3Transformer2DModel

        for executor in engine._local.values():
            executor.draw = self._of_job(executor.draw)
        step, decode = SD3Transformer2DModel.forward, AutoencoderKL.decode
        SD3Transformer2DModel.forward = self._counted(step, 1)
        AutoencoderKL.decode = self._counted(decode, 0)
        try:
            yield
        finally:
            SD3Transformer2DModel.forward, AutoencoderKL.decode = step, decode
            for executor in engine._local.values():
                del executor.draw  # the instance's own: the class' is back

    def _of_job(self, draw: Callable[..., None]) -> Callable[..., None]:
        def named(run: Any, *others: Any) -> None:
            self._run = run
            try:
                draw(run, *others)
            finally:
                self.ended[run.job.id] += 1

        return named

    def _counted(self, call: Callable[..., Any], steps: int) -> Callable[..., Any]:
        @wraps(call)
        def counted(*arguments: Any, **named: Any) -> Any:
            run, thread = self._run, threading.current_thread().name
            with self._lock:
                self._on[thread] += 1
                self.most = max(self.most, len(+self._on))
            try:
                return call(*arguments, **named)
            finally:
                with self._lock:
                    self._on[thread] -= 1
                    if run is not None:
                        self.steps[run.job.id] += steps
                        self.late[run.job.id] += steps * run.cancel.is_set

        return counted


def run(
    stops: int, folder: Path, seed: int = SEED, values: dict[str, Any] = SMALL, engine: Any = None
) -> Stops:
    """So many jobs, each stopped at a random moment.

    Args:
        folder: for the jobs. values: the request. engine: who draws; None: the embedded model's.
    """
    from jobs.data_dir.folder import DataFolder
    from jobs.limits import Limits
    from jobs.queue import Queue
    from jobs.store.models import Owner
    from jobs.workers.executors import executors
    from pipeline.engine import EngineSpec

    found, device, chance = Stops(), Device(), random.Random(seed)
    engine = engine or EngineSpec(ROOT / "models.yaml").engine()
    rules = Limits(room=stops, each=stops)
    queue = Queue(engine, DataFolder(folder), executors(engine), rules)
    queue.start(engine.check(values), Owner("address:first"), "detached").result()
    began = time.monotonic()
    queue.start(engine.check(values), Owner("address:first"), "detached").result()
    step = (time.monotonic() - began) / values["steps"]
    lock = threading.Lock()

    def some(numbers: list[int], person: str, chance: random.Random) -> None:
        for number in numbers:
            job = engine.check(values | {"seed": number})
            one = _stop_once(queue.start(job, Owner(person), "detached"), device, chance, step)
            with lock:
                found.at[one.phase] += 1
                found.ended[one.ended] += 1
                found.seconds.append(one.seconds)
                if one.phase == "denoising":
                    found.steps.append(one.steps)

    threads = [
        threading.Thread(
            target=some,
            args=(list(range(first, stops, AT_ONCE)), f"address:{first}", random.Random(chance.random())),
        )
        for first in range(AT_ONCE)
    ]
    with device.watched(engine):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    queue.close()
    found.most = device.most
    return found


@dataclass(frozen=True)
class _Stopped:
    phase: str
    ended: str
    seconds: float
    steps: int


def _stop_once(following: Any, device: Device, chance: random.Random, step: float) -> _Stopped:
    """Stops one job at a random moment of a random phase, and waits for its end."""
    aim = chance.choice(PHASES)
    for event in following.events():
        if event.last or PHASES.index(aim) <= _number(event.phase):
            break
    time.sleep(chance.uniform(0, 1.5 * step * event.job.steps if aim == "denoising" else step))
    before, began = following.latest, time.monotonic()
    following.stop()
    last = following.result()
    seconds = time.monotonic() - began
    return _Stopped(before.phase, last.phase, seconds, device.late[following.job.id])


def _number(phase: str) -> int:
    return (
        PHASES.index(phase) if phase in PHASES else 1 if phase in ("downloading", "loading") else len(PHASES)
    )


def report(found: Stops) -> str:
    stops = sum(found.at.values())
    return table(
        f"{stops} stops",
        [
            ("", ""),
            ("came while", ", ".join(f"{phase} {number}" for phase, number in sorted(found.at.items()))),
            ("ended as", ", ".join(f"{phase} {number}" for phase, number in sorted(found.ended.items()))),
            ("threads in a network at once, at most", f"{found.most}"),
            ("steps that ended after a stop amid the steps, p50 / p95 / most", _spread(found.steps, "")),
            (
                "from a stop to the job's end, p50 / p95 / most",
                _spread([1e3 * s for s in found.seconds], " ms"),
            ),
        ],
    )


def _spread(values: list[Any], unit: str) -> str:
    return f"{median(values):.0f} / {percentile(values, 0.95):.0f} / {max(values):.0f}{unit}"


def main() -> None:
    parser = command_line("stops", __doc__)
    parser.add_argument("--stops", type=int, default=1000, help="jobs, each stopped once (default 1,000)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the moments (default {SEED})")
    asked = parse_or_compare(parser)
    print(
        setting(f"Sketch on the CPU, 8 steps, 128²; {AT_ONCE} jobs at once, seed {asked.seed}."), flush=True
    )
    with scratch() as folder:
        print(report(run(asked.stops, folder, asked.seed)))


if __name__ == "__main__":
    main()
