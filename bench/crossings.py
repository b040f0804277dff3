"""Through how many threads and processes does a preview go, from its step to the answer that tells its
client, and how long does that take?

    python -m bench.crossings [--before FOLDER]

Real servers draw sketch for a client that speaks REST, in the server's process and in a worker's; with the
folder of another checkout, servers of both, which draw in turns. First untraced: each preview's time from the
end of its scheduler's step to its event at the client, and to its picture fetched; and the threads that a
drawing starts. Then traced: each preview's path from the thread that took the step (and runs the pipeline's
step callback) to the one that gives uvicorn the event with the preview's address. A hand-over is a change of
thread on that path. What the trace sees, and what it doesn't, is said in bench/support/inside; it knows
nothing of our code but that previews are JPEGs, and a preview's address. The picture's own request afterwards
is no part of the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import httpx

from bench.support.inside.sitecustomize import RECORDS, TRACE
from bench.support.rest import fetch, follow
from bench.support.served import Served
from bench.support.table import ROOT, command_line, percentile, scratch, setting, table
from bench.support.trace import Hop, Records, Step, general

INSIDE = ROOT / "bench" / "support" / "inside"
PLACES = {"this process": "0", "a worker process": "1"}
"""Where is drawn: STEPWISE_WORKERS."""


@dataclass(frozen=True)
class Preview:
    """One preview as its client saw it. path: of its file; step: whose it is, from 1; told, fetched: when its
    event and its picture came (time.monotonic()); picture: its CRC-32."""

    path: str
    step: int
    told: float
    fetched: float
    picture: int


@dataclass
class Drawing:
    """One drawing as its client saw it. began, ended: time.monotonic()."""

    began: float
    ended: float = 0.0
    steps: int = 0
    previews: list[Preview] = field(default_factory=list)


@dataclass
class Side:
    """One checkout's server, what its processes recorded, and its drawings; the first of these warms up."""

    name: str
    served: Served
    folder: Path
    drawings: list[Drawing] = field(default_factory=list)

    def records(self) -> Records:
        return Records.read(self.folder)

    def counted(self, records: Records) -> Iterator[tuple[Drawing, list[Step]]]:
        """Each drawing but the first, with its steps.

        Raises:
            SystemExit: others than its own were recorded.
        """
        for drawing in self.drawings[1:]:
            steps = records.steps_between(drawing.began, drawing.ended)
            if len(steps) != drawing.steps:
                raise SystemExit(f"{self.name}: {len(steps)} steps of {drawing.steps} were recorded.")
            yield drawing, steps


# Drawing.


@contextlib.contextmanager
def sides(checkouts: dict[str, Path], workers: str, traced: bool, folder: Path) -> Iterator[list[Side]]:
    """Servers of these checkouts, as long as the block lasts."""
    found = []
    try:
        for name, checkout in checkouts.items():
            own = folder / f"{name}-{workers}-{traced}"
            (own / "records").mkdir(parents=True)
            environment = {
                "STEPWISE_WORKERS": workers,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(INSIDE), os.environ.get("PYTHONPATH")])),
                RECORDS: str(own / "records"),
                TRACE: str(checkout) if traced else "",
            }
            found.append(Side(name, Served(own, checkout, **environment), own / "records"))
            found[-1].served.start()
        yield found
    finally:
        for side in found:
            side.served.kill()


async def draw_in_turns(found: list[Side], drawings: int, steps: int, size: int) -> None:
    """One drawing of each to warm up, and so many more; each turn begins with another side."""
    async with httpx.AsyncClient(timeout=120) as http:
        for side in found:
            await side.served.answering(http)
        for number in range(drawings + 1):
            for side in found[:: 1 if number % 2 else -1]:
                request = {
                    "prompt": "a red apple",
                    "model": "sketch",
                    "steps": steps,
                    "width": size,
                    "height": size,
                    "seed": number,
                }
                side.drawings.append(await draw(http, side.served.url, request))


async def draw(http: httpx.AsyncClient, url: str, request: dict[str, Any]) -> Drawing:
    """Draws, and fetches each preview as it comes."""
    drawing = Drawing(time.monotonic(), steps=request["steps"])
    paths = set()
    async for pictures, info in follow(http, url, "generate", request):
        told = time.monotonic()
        if info["phase"] == "denoising" and pictures and (path := pictures[0]["image"]["path"]) not in paths:
            paths.add(path)
            picture = await fetch(http, pictures[0])
            fetched = time.monotonic()
            drawing.previews.append(Preview(path, info["step"], told, fetched, crc32(picture)))
    drawing.ended = time.monotonic()
    if info["phase"] != "finished" or not drawing.previews:
        raise SystemExit(f"A drawing ended as {info} with {len(drawing.previews)} previews.")
    return drawing


# What was found.


def latency_row(place: str, side: Side, records: Records) -> tuple[str, ...]:
    told, fetched = [], []
    for drawing, steps in side.counted(records):
        for preview in drawing.previews:
            step = steps[preview.step - 1].at
            told.append(1e3 * (preview.told - step))
            fetched.append(1e3 * (preview.fetched - step))
    spread = [f"{value:.1f} ms" for of in (told, fetched) for value in (median(of), percentile(of, 0.95))]
    return place, side.name, f"{len(told)}", *spread


def threads_row(place: str, side: Side, records: Records) -> tuple[str, ...]:
    """Threads that a drawing starts: their number in the middle, and in how many drawings which."""
    assert side.served.process is not None
    server = side.served.process.pid
    numbers: dict[bool, list[int]] = {True: [], False: []}
    names: Counter[str] = Counter()
    drawings = side.drawings[1:]
    for drawing in drawings:
        started = records.started_between(drawing.began, drawing.ended)
        for of_server, counts in numbers.items():
            counts.append(sum(n for (process, _), n in started.items() if (process == server) == of_server))
        for (process, name), number in started.items():
            names[f"{'server' if process == server else 'worker'}: {name}"] += number
    listed = ", ".join(f"{name} {number / len(drawings):.1f}×" for name, number in sorted(names.items()))
    return place, side.name, f"{median(numbers[True]):g}", f"{median(numbers[False]):g}", listed or "–"


def path_row(place: str, side: Side, records: Records) -> tuple[str, ...]:
    """Hand-overs of all previews, the threads that had them, and the path that most of them took. known: the
    share of the hand-overs whose waking or message was recorded."""
    assert side.served.process is not None
    paths: list[list[Hop]] = []
    holders = []
    for drawing, steps in side.counted(records):
        for preview in drawing.previews:
            if (answer := records.answers.get(preview.path)) is None:
                raise SystemExit(f"{side.name}: the answer with {preview.path} wasn't recorded.")
            preview_of = steps[preview.step - 1], preview.picture, answer
            paths.append(records.path(*preview_of))
            holders.append(records.holders(*preview_of))
    handovers = [len(path) - 1 for path in paths]
    server = side.served.process.pid

    def words(path: list[Hop]) -> str:
        named = [
            f"{'server' if hop.thread.process == server else 'worker'}: {general(records.names[hop.thread])}"
            for hop in path
        ]
        return " → ".join(named)

    usual, _ = Counter(map(words, paths)).most_common(1)[0]
    processes = median(len({hop.thread.process for hop in path}) for path in paths)
    known = sum(hop.known for path in paths for hop in path[1:]) / max(1, sum(handovers))
    spread = f"{median(handovers):g} ({min(handovers)} to {max(handovers)})"
    numbers = f"{median(holders):g}", f"{processes:g}", f"{100 * known:.0f} %"
    return place, side.name, f"{len(paths)}", spread, *numbers, usual


def main() -> None:
    parser = command_line("crossings", __doc__)
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout to compare this one with")
    parser.add_argument("--drawings", type=int, default=20, help="of each, untraced (default 20)")
    parser.add_argument("--traced", type=int, default=5, help="of each, traced (default 5)")
    parser.add_argument("--steps", type=int, default=28, help="denoising steps (default 28)")
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels (default 256)")
    asked = parser.parse_args()
    checkouts = {"before": asked.before.resolve()} if asked.before else {}
    checkouts["now"] = ROOT
    print(
        setting(
            f"Sketch on the CPU, {asked.steps} steps, {asked.size}², one job at a time, a REST client on "
            f"this machine; {asked.drawings} drawings of each untraced and {asked.traced} traced, in turns, "
            "each after one to warm up."
        ),
        flush=True,
    )
    latencies: list[tuple[str, ...]] = [
        ("drawn in", "", "previews", "to its event: p50", "p95", "to its picture: p50", "p95")
    ]
    threads: list[tuple[str, ...]] = [("drawn in", "", "in the server", "in the worker", "which")]
    paths: list[tuple[str, ...]] = [
        (
            "drawn in",
            "",
            "previews",
            "hand-overs",
            "threads that had it",
            "processes",
            "known",
            "the usual path",
        )
    ]
    with scratch() as folder:
        for place, workers in PLACES.items():
            with sides(checkouts, workers, False, folder) as found:
                asyncio.run(draw_in_turns(found, asked.drawings, asked.steps, asked.size))
            for side in found:
                records = side.records()
                latencies.append(latency_row(place, side, records))
                threads.append(threads_row(place, side, records))
            with sides(checkouts, workers, True, folder) as found:
                asyncio.run(draw_in_turns(found, asked.traced, asked.steps, asked.size))
            paths += [path_row(place, side, side.records()) for side in found]
    print(table("A preview's path from its step to its client, traced", paths))
    print(table("From a preview's step to its client, untraced", latencies))
    print(table("Threads that a drawing starts", threads))


if __name__ == "__main__":
    main()
