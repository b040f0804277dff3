"""What OpenAI's streaming route adds to a drawing: how late the first preview is, what pictures it costs.

    python -m bench.openai_stream

The app runs in this process, as app.py starts it, so that the engine can be watched; OpenAI's own client runs
in another. One machine's monotonic clock is read by both.

1. The first partial image, as the client has it, against the drawing's first preview, both from the start of
   the drawing. 2. Pictures a minute of several streaming clients at once, over the same jobs given to the
   engine alone. In turns.
"""

from __future__ import annotations

import os

# As app.py has it.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.support.table import ROOT, command_line, scratch, setting, table

PROMPT = "a red apple"

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured. calls: of each number of partial images; rounds: of each side, in turns; clients
    at once, and the pictures each asks for, one after the other; steps; size: pixels of a side."""

    calls: int
    rounds: int
    clients: int
    each: int
    steps: int
    size: int


def main() -> None:
    parser = command_line("openai_stream", __doc__)
    parser.add_argument("--quick", action="store_true", help="small and few: whether it runs at all")
    parser.add_argument("--calls", type=int, default=9, help="of each number of previews (default 9)")
    parser.add_argument("--rounds", type=int, default=3, help="of each side, in turns (default 3)")
    parser.add_argument("--clients", type=int, default=8, help="at once (default 8)")
    parser.add_argument("--each", type=int, default=2, help="pictures of a client in a round (default 2)")
    parser.add_argument("--steps", type=int, default=28, help="denoising steps (default 28)")
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels (default 256)")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    asked = vars(parser.parse_args())
    server, quick = asked.pop("client"), asked.pop("quick")
    if server:
        asyncio.run(_client(server))
        return
    if quick:
        asked |= {"calls": 3, "rounds": 1, "each": 1, "steps": 8, "size": 128}
    sizes = Sizes(**asked)
    print(
        setting(
            f"Model sketch, fp32 on the CPU, “{PROMPT}”, {sizes.steps} steps, {sizes.size}². The app in one "
            f"process, OpenAI's Python client in another. {sizes.calls} calls of each number of partial "
            f"images in turns after one to warm up; {sizes.rounds} rounds of each side in turns, "
            f"{sizes.clients} clients at once with {sizes.each} pictures each, 3 partial images a picture."
        ),
        flush=True,
    )
    with _app() as (engine, url), _clients(url) as ask:
        print(_first_preview(ask, sizes), flush=True)
        print(_pictures_a_minute(engine, ask, sizes), flush=True)


# 1. The first preview.


def _first_preview(ask: Any, sizes: Sizes) -> str:
    seen = _watch()
    later: dict[int, list[tuple[float, float]]] = {3: [], sizes.steps: []}
    for number in range(sizes.calls + 1):
        for partials, found in later.items():
            body = _body(sizes) | {"partial_images": partials}
            ((arrived, _),) = ask([[body]])
            began, preview = seen[body["extra_body"]["job"]]
            if number:  # the first of each warms up
                found.append((preview, arrived[0] - began))
    rows: Rows = [("from the start of the drawing", "median", "minimum", "maximum")]
    for partials, found in later.items():
        for name, values in (
            ("the drawing's first preview", [preview for preview, _ in found]),
            ("the client's first partial image", [partial for _, partial in found]),
            ("later by", [partial - preview for preview, partial in found]),
        ):
            rows.append(
                (
                    f"partial_images = {partials}: {name}",
                    *(f"{over(values) * 1e3:.1f} ms" for over in (median, min, max)),
                )
            )
    return table("The first partial image, against the drawing's first preview", rows)


def _watch() -> dict[str, tuple[float, float]]:
    """By job: the monotonic time at which its drawing began, and the seconds until its first preview."""
    from pipeline.run import Run

    seen: dict[str, tuple[float, float]] = {}
    began: dict[str, float] = {}
    begin, update = Run.begin, Run.update

    def watched_begin(run: Run) -> None:
        began[run.job.id] = time.monotonic()
        begin(run)

    def watched_update(run: Run, **changes: Any) -> None:
        update(run, **changes)
        if changes.get("previews"):
            seen.setdefault(run.job.id, (began[run.job.id], run.latest.seconds))

    Run.begin, Run.update = watched_begin, watched_update  # type: ignore[method-assign]
    return seen


# 2. Pictures a minute.


def _pictures_a_minute(engine: Any, ask: Any, sizes: Sizes) -> str:
    def alone() -> float:
        """The same jobs, as many at once, given to the engine without any client."""

        def lane(_: int) -> None:
            for _ in range(sizes.each):
                values = {"prompt": PROMPT, "model": "sketch", "width": sizes.size, "height": sizes.size}
                engine.start(engine.check(values | {"steps": sizes.steps})).result()

        began = time.monotonic()
        with ThreadPoolExecutor(sizes.clients) as lanes:
            list(lanes.map(lane, range(sizes.clients)))
        return time.monotonic() - began

    def streamed() -> float:
        bodies = [
            [_body(sizes) | {"partial_images": 3} for _ in range(sizes.each)] for _ in range(sizes.clients)
        ]
        began = time.monotonic()
        ended = max(end for _, end in ask(bodies))
        return ended - began

    alone()  # warms up
    times: dict[Any, list[float]] = {alone: [], streamed: []}
    for number in range(sizes.rounds):
        for side in list(times)[:: -1 if number % 2 else 1]:
            times[side].append(side())
    rows: Rows = [("", "median", "best")]
    for name, side in (("the engine alone", alone), (f"{sizes.clients} streaming clients", streamed)):
        rates = [sizes.clients * sizes.each / seconds * 60 for seconds in times[side]]
        rows.append((name, f"{median(rates):.1f} a minute", f"{max(rates):.1f} a minute"))
    shares = [before / after for before, after in zip(times[alone], times[streamed], strict=True)]
    rows.append(("share of the engine's, round by round", f"{median(shares):.1%}", f"{max(shares):.1%}"))
    return table("Pictures a minute", rows)


# The app, and the clients.


@contextlib.contextmanager
def _app() -> Iterator[tuple[Any, str]]:
    """The engine and the address of the whole app in this process, Sketch loaded."""
    with scratch() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        from api.gradio.queue import harden_queue
        from api.routes import app_options
        from jobs.data_dir.folder import DataFolder
        from jobs.limits import Limits
        from jobs.queue import Queue
        from jobs.workers.executors import executors
        from pipeline.catalog.catalogue import read_catalogue
        from pipeline.devices.hardware import Wanted
        from pipeline.engine import Engine
        from ui.page import build_page, launch_options

        engine = Engine(read_catalogue(ROOT / "models.yaml"), Wanted("cpu"))
        engine.load("sketch")
        rules = Limits(room=1000, each=1000)  # all clients are one person
        queue = Queue(engine, DataFolder(folder / "data"), executors(engine), rules)
        demo = build_page(queue)
        demo.queue(api_open=False, max_size=1000, default_concurrency_limit=None)
        harden_queue(demo)
        options = launch_options() | {"app_kwargs": app_options(demo, queue), "quiet": True}
        _, url, _ = demo.launch(**options, prevent_thread_lock=True)
        try:
            yield engine, url.rstrip("/")
        finally:
            demo.close(verbose=False)
            queue.close()


@contextlib.contextmanager
def _clients(url: str) -> Iterator[Any]:
    """A function that has OpenAI's clients, as many as there are lists, stream each its list of bodies: for
    each client, when the first partial image of each arrived, and when it had ended."""
    command = [sys.executable, "-m", "bench.openai_stream", "--client", url]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        assert stdout.readline() == "ready\n"

        def ask(bodies: list[list[dict[str, Any]]]) -> Any:
            print(json.dumps(bodies), file=stdin, flush=True)
            return json.loads(stdout.readline())

        yield ask
        stdin.close()


async def _client(url: str) -> None:
    """The other process: reads what to ask for, a line each, and answers with the times."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as openai:

        async def one(bodies: list[dict[str, Any]]) -> tuple[list[float], float]:
            firsts = []
            for body in bodies:
                first = None
                async for _ in await openai.images.generate(**body, stream=True):
                    first = first or time.monotonic()
                firsts.append(first)
            return firsts, time.monotonic()

        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            found = await asyncio.gather(*(one(bodies) for bodies in json.loads(line)))
            print(json.dumps(found), flush=True)


def _body(sizes: Sizes) -> dict[str, Any]:
    extra = {"steps": sizes.steps, "job": str(uuid.uuid4())}
    return {"prompt": PROMPT, "model": "sketch", "size": f"{sizes.size}x{sizes.size}", "extra_body": extra}


if __name__ == "__main__":
    main()
