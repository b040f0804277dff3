"""What streaming every step costs: Stepwise against the plain library and against a plain Gradio app.

    python -m bench.overhead

1. Process time (all threads of the process) of `engine.start` with a reader of every event, over the plain
   diffusers call on the same weights; both end with the bytes of a PNG. Then the same job through the queue,
   written down and logged, over `engine.start`. All in turns, in one process.
2. Through gradio_client, against real servers: Stepwise's /generate, every event read and every preview
   fetched, over a plain Gradio function that returns the PNG. In turns, a process each. Once more
   without fetching: the client builds an SSL context for every file it fetches.
3. Time to the first preview. 4. CPU of the server when nobody is there.
"""

from __future__ import annotations

import os

# A thread of libgomp that waits for work spins, which process time counts as work. Passive ones sleep.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from bench.support.comparison import parse_or_compare
from bench.support.table import ROOT, command_line, server, setting, table

PROMPT = "a red apple, {}"
"""Numbered, so that no drawing finds its prompt's embeddings in the cache: the plain call has none."""
SEED = 5
IDLE_SECONDS = 20

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Call:
    """One call through gradio_client: seconds from submit to its end, process seconds of the client and of
    the server, and for each event (seconds since submit, pictures, info)."""

    seconds: float
    client: float
    server: float
    events: list[tuple[float, Any, dict[str, Any]]]


def main() -> None:
    parser = command_line("overhead", __doc__)
    parser.add_argument("--rounds", type=int, default=7, help="of each in the process, in turns (default 7)")
    parser.add_argument("--calls", type=int, default=5, help="of each server, in turns (default 5); 0: none")
    parser.add_argument("--steps", type=int, default=28, help="denoising steps (default 28)")
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels (default 256)")
    asked = parse_or_compare(parser)

    print(
        setting(
            f"Model sketch, fp32 on the CPU, “{PROMPT.format(1)}” and so on, "
            f"{asked.steps} steps, {asked.size}², seed {SEED}, "
            f"guidance 3.5. In the process: {asked.rounds} of each in turns after one to warm up, "
            f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}. Servers: {asked.calls} of each in turns after "
            "one to warm up, torch's own number of threads; app.py sets OMP_WAIT_POLICY=PASSIVE itself, the "
            "plain app has libgomp's default."
        ),
        flush=True,
    )
    in_process(asked.rounds, asked.steps, asked.size)
    if asked.calls:
        through_servers(asked.calls, asked.steps, asked.size)


# 1. In the process.


def in_process(rounds: int, steps: int, size: int) -> None:
    """Prints process time a step, at one thread and at torch's own number, and what it is made of."""
    import torch

    from bench.support import plain_app
    from jobs.data_dir.folder import DataFolder
    from jobs.limits import Limits
    from jobs.queue import Queue
    from jobs.store.models import Owner
    from jobs.workers.executors import executors

    pipe = plain_app.load()
    seen, mine, its, its_own = [], count(), count(), count()

    def plain() -> bytes:
        buffer = io.BytesIO()
        plain_app.draw(pipe, PROMPT.format(next(its)), SEED, steps, size).save(buffer, "PNG")
        return buffer.getvalue()

    def ours() -> bytes:
        job = engine.check({"prompt": PROMPT.format(next(mine)), **_settings(steps, size)})
        events = list(engine.start(job).events())
        seen.append(len({event.preview for event in events}) - 1)
        return events[-1].images[0]

    def queued() -> bytes:
        job = engine.check({"prompt": PROMPT.format(next(its_own)), **_settings(steps, size)})
        return list(queue.start(job, Owner("address:local"), "detached").events())[-1].images[0]

    rows: Rows = [("threads", "per step", "plain", "Stepwise", "extra", "extra, % of a step")]
    stored: Rows = [("threads", "a drawing", "engine", "queue", "ratio")]
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        # Anew: the thread that draws for an engine keeps the number that it began with.
        engine, scratch = _engine(), tempfile.TemporaryDirectory(prefix="bench-")
        queue = Queue(engine, DataFolder(Path(scratch.name)), executors(engine), Limits())
        plain_times, our_times, queue_times = _in_turns(rounds, plain, ours, queued)
        queue.close()
        scratch.cleanup()
        for column, unit in enumerate(("process time", "wall time")):
            for name, over in (("minimum", min), ("median", median)):
                a, b = (over(time[column] for time in times) for times in (our_times, queue_times))
                stored.append((f"{threads}", f"{unit}, {name}", f"{a:.3f} s", f"{b:.3f} s", f"{b / a:.3f}×"))
        for column, unit in enumerate(("process time", "wall time")):
            for name, over in (("minimum", min), ("median", median)):
                a = over(time[column] for time in plain_times) / steps * 1e3
                b = over(time[column] for time in our_times) / steps * 1e3
                rows.append(
                    (f"{threads}", f"{unit}, {name}", f"{a:.2f} ms", f"{b:.2f} ms", f"{b - a:+.2f} ms",
                     f"{(b - a) / a * 100:+.1f} %")
                )  # fmt: skip
    print(table("Streaming every step over the plain diffusers call, in one process", rows))
    print(table("The same through the queue: store, log of every event, fair order", stored))
    torch.set_num_threads(1)
    print(
        table(
            f"What it is made of, for {steps} steps",
            _parts(engine, engine.check({"prompt": PROMPT, **_settings(steps, size)}), median(seen), steps),
        )
    )


def _in_turns(rounds: int, *sides: Callable[[], Any]) -> list[list[tuple[float, float]]]:
    """(process, wall) seconds of each side, `rounds` times; the order of the sides alternates."""
    for side in sides:
        side()
    times: list[list[tuple[float, float]]] = [[] for _ in sides]
    for number in range(rounds):
        for index, side in list(enumerate(sides))[:: 1 if number % 2 else -1]:
            process, wall = time.process_time(), time.perf_counter()
            side()
            times[index].append((time.process_time() - process, time.perf_counter() - wall))
    return times


def _parts(engine: Any, job: Any, previews: float, steps: int) -> Rows:
    """Each thing that Stepwise does and the plain call doesn't, timed by itself in one thread."""
    import torch
    from PIL import Image

    from pipeline.devices.hardware import processor
    from pipeline.devices.memory_plans import RESIDENT
    from pipeline.devices.serial_thread import SerialThread
    from pipeline.event_stream import EventStream
    from pipeline.events import Event
    from pipeline.recipe import to_png
    from pipeline.run import Cancel, Run
    from pipeline.sampling.preview import Estimate, render
    from pipeline.sampling.sample import Memory, _encode, _made_with, bring
    from pipeline.sampling.thumbnail import jpeg
    from pipeline.weights.model import find_weights
    from pipeline.weights.patches import NO_PATCHES
    from pipeline.weights.profile import STOCK
    from pipeline.weights.residency import Residency

    spec = engine.catalogue[job.model]
    run = Run(job, EventStream(Event(job)).publish, Cancel())
    weights = find_weights(spec, Path(spec.layout), processor(), RESIDENT, STOCK, NO_PATCHES)
    memory = Memory(Residency(processor()), SerialThread("previews"))
    picture = Image.open(io.BytesIO(engine.start(job).result().images[0])).convert("RGB")
    noise = torch.randn(1, 16, job.height // 8, job.width // 8)
    estimate = Estimate(noise, noise, torch.tensor(0.5))
    values = job.model_dump(exclude={"id", "warnings"})

    def borrow() -> None:
        with weights.job_components() as own:
            own.pipeline(networks)

    networks = bring(run, weights, memory.residency, weights.networks)
    with torch.no_grad(), weights.job_components() as own:
        preview = _ms(lambda: render(estimate, weights.factors, job.width, job.height))
        reading = _ms(lambda: _encode(run, own, memory))
        png = _ms(lambda: to_png(picture, job, 0, _made_with(weights)))
    borrow()  # the second set of tokenizers is copied here
    parts = {
        f"{previews:g} previews: linear map, resize, JPEG": previews * preview,
        "the finished picture's JPEG": _ms(lambda: jpeg(picture)),
        "the PNG with its recipe, over Pillow's own": png - _ms(lambda: picture.save(io.BytesIO(), "PNG")),
        "its own scheduler and pipeline object, lent tokenizers": _ms(borrow),
        "counting tokens, embeddings from the cache": reading,
        f"posting {steps + 6} events": (steps + 6) * _ms(lambda: run.update(step=1)),
        "checking the request": _ms(lambda: engine.check(values)),
    }
    parts["all of these; the rest is threads changing places"] = sum(parts.values())
    rows = [(name, f"{ms:.2f} ms", f"{ms / steps:.3f} ms") for name, ms in parts.items()]
    return [("", "a drawing", "a step"), *rows]


def _ms(work: Callable[[], Any], times: int = 20) -> float:
    """The least CPU milliseconds of this thread that `work` took."""
    took = []
    for _ in range(times):
        began = time.thread_time()
        work()
        took.append(time.thread_time() - began)
    return min(took) * 1e3


def _settings(steps: int, size: int) -> dict[str, Any]:
    return {"model": "sketch", "seed": SEED, "steps": steps, "width": size, "height": size}


def _engine() -> Any:
    from pipeline.catalog.catalogue import read_catalogue
    from pipeline.devices.hardware import Wanted
    from pipeline.engine import Engine

    engine = Engine(read_catalogue(ROOT / "models.yaml"), Wanted("cpu"))
    engine.load("sketch")
    return engine


# 2. to 4. Through servers.


def through_servers(calls: int, steps: int, size: int) -> None:
    """Prints what a caller sees, first preview included, and what the servers use when nobody is there."""
    from gradio_client import Client

    del os.environ["OMP_WAIT_POLICY"]  # the servers have the environment that an owner's would
    with (
        server("-m", "bench.support.plain_app") as (plain_url, plain_process, _),
        server("app.py") as (url, process, _),
    ):
        clients = {
            "plain function": Client(plain_url, verbose=False),
            "Stepwise": Client(url, verbose=False),
            "Stepwise, files not fetched": Client(url, verbose=False, download_files=False),
        }
        found: dict[str, list[Call]] = {name: [] for name in clients}
        numbers = count()
        for number in range(calls + 1):
            for name, client in clients.items():
                prompt = PROMPT.format(next(numbers))
                call = (
                    _call(client, plain_process.pid, prompt, SEED, steps, size)
                    if name == "plain function"
                    else _call(client, process.pid, prompt, **_settings(steps, size))
                )
                if number:  # the first of each warms up
                    found[name].append(call)
        for client in clients.values():
            client.close()
        print(table("Through gradio_client, against a plain Gradio function", _call_rows(found)))
        rows: Rows = [("server", f"CPU of one core over {IDLE_SECONDS} s")]
        rows += [("plain function", f"{_idle_cpu(plain_process.pid):.2f} %")]
        rows += [("Stepwise", f"{_idle_cpu(process.pid):.2f} %")]
    print(table("At rest, no page open", rows))


def _call(client: Any, pid: int, *inputs: Any, **named: Any) -> Call:
    began, mine, its = time.perf_counter(), time.process_time(), _cpu(pid)
    events = []
    for outputs in client.submit(*inputs, **named, api_name="/generate"):
        pictures, info = outputs if isinstance(outputs, tuple) else (outputs, {})
        events.append((time.perf_counter() - began, pictures, info))
    return Call(time.perf_counter() - began, time.process_time() - mine, _cpu(pid) - its, events)


def _call_rows(found: dict[str, list[Call]]) -> Rows:
    def of(name: str, what: Callable[[Call], float]) -> tuple[float, float]:
        values = [what(call) for call in found[name]]
        return median(values), min(values)

    def ms(name: str, pair: tuple[float, float]) -> tuple[str, str, str]:
        return name, f"{pair[0] * 1e3:.1f} ms", f"{pair[1] * 1e3:.1f} ms"

    plain, *ours = found
    base = of(plain, lambda call: call.seconds)
    rows: Rows = [("", "median", "minimum"), ms(f"{plain}: total", base)]
    for name in ours:
        total, events = of(name, lambda call: call.seconds), of(name, lambda call: len(call.events))[0]
        rows += [
            ms(f"{name}: total, {events:g} events", total),
            (f"{name}: ratio", f"{total[0] / base[0]:.3f}×", f"{total[1] / base[1]:.3f}×"),
        ]
        measures: dict[str, Callable[[Call], float]] = {
            "time": lambda call: call.seconds,
            "client's CPU": lambda call: call.client,
            "server's CPU": lambda call: call.server,
        }
        for what, measure in measures.items():
            extra = [(a - b) / events for a, b in zip(of(name, measure), of(plain, measure), strict=True)]
            rows.append(ms(f"{name}: {what} an event, over the plain call's", (extra[0], extra[1])))
    return [
        *rows,
        ms("first preview, from submit", of(ours[0], lambda call: _first(call)[0])),
        ms("first preview, from the start of drawing", of(ours[0], lambda call: _first(call)[2]["seconds"])),
    ]


def _first(call: Call) -> tuple[float, Any, dict[str, Any]]:
    """The first event with a picture."""
    return next(event for event in call.events if event[1])


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _idle_cpu(pid: int) -> float:
    """Percent of one core that a process uses, after it has come to rest."""
    time.sleep(3)
    before = _cpu(pid)
    time.sleep(IDLE_SECONDS)
    return (_cpu(pid) - before) / IDLE_SECONDS * 100


if __name__ == "__main__":
    main()
