"""From the start of the process to the page, and on to the first drawing: what the seconds are spent on.

    python -m bench.startup

Fresh processes throughout: `python app.py` as it is, timed from outside, in turns with one that takes
app.main's steps one by one and times each. Then what Python's own `-X importtime` says of the imports.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.support.table import ROOT, command_line, server, setting, table

LIBRARIES = ("torch", "transformers", "diffusers", "gradio")
"""In this order, so that each line of the table is what that library adds to those before it."""
OURS = ("app", "settings", "pipeline", "jobs", "ui", "api")
TOP = 15


def main() -> None:
    parser = command_line("startup", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes of each kind (default 5)")
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)  # what a child is told
    arguments = parser.parse_args()
    if arguments.steps:
        print(json.dumps(steps()))
        return

    print(setting(f"{arguments.rounds} fresh processes each, in turns; warm disk cache."), flush=True)
    _child()  # fills the disk cache
    pages, split = [], []
    for _ in range(arguments.rounds):
        with server("app.py") as (_, _, seconds):
            pages.append(seconds)
        split.append(_child())
    print(table("Start", _start_rows(pages, split)))
    modules = _import_times()
    print(table("Imports by package, seconds of their own under -X importtime", _package_rows(modules)))
    print(table("The modules that take longest by themselves", _module_rows(modules)))


def steps() -> dict[str, Any]:
    """In a fresh process: takes the steps of app.main one by one. {step: [wall seconds, CPU seconds]}, and
    under "twice" the files that are loaded as two modules, under "added" the packages that only we import."""
    took: dict[str, Any] = {}
    clock = [time.perf_counter(), time.process_time()]

    def lap(name: str) -> None:
        now = [time.perf_counter(), time.process_time()]
        took[name] = [now[0] - clock[0], now[1] - clock[1]]
        clock[:] = now

    for name in LIBRARIES:
        __import__(name)
        lap(f"import {name}")
    theirs = set(sys.modules)
    from app import Settings, build_page, launch_options
    from jobs.data_dir.folder import DataFolder
    from jobs.limits import Limits
    from jobs.queue import Queue
    from jobs.workers.executors import executors
    from pipeline.catalog.catalogue import read_catalogue
    from pipeline.devices.hardware import Wanted
    from pipeline.engine import Engine

    lap("import app")
    added = {name.partition(".")[0] for name in set(sys.modules) - theirs} - {*OURS}
    took["added"] = sorted(added - {name.partition(".")[0] for name in theirs})
    settings = Settings()
    engine = Engine(read_catalogue(settings.models), Wanted("cpu"), settings.threads)
    lap("settings, models.yaml, engine")
    model = engine.default_model
    engine.load(model)
    lap("weights, and the classes that read them")
    from pipeline.devices.hardware import processor
    from pipeline.devices.memory_plans import RESIDENT
    from pipeline.weights.model import find_weights
    from pipeline.weights.patches import NO_PATCHES
    from pipeline.weights.profile import STOCK
    from pipeline.weights.residency import Residency

    spec = engine.catalogue[model]
    networks = find_weights(spec, Path(spec.layout), processor(), RESIDENT, STOCK, NO_PATCHES).networks
    Residency(processor()).bring(networks, room=0, report=lambda *_: None)
    lap("weights alone")
    folder = tempfile.TemporaryDirectory(prefix="bench-")
    queue = Queue(engine, DataFolder(Path(folder.name)), executors(engine), Limits())
    lap("the queue")
    demo = build_page(queue)
    demo.queue(api_open=False, max_size=1000, default_concurrency_limit=None)
    lap("building the page")
    demo.launch(**launch_options(), prevent_thread_lock=True, quiet=True)
    lap("launch")
    for which in ("first", "second"):
        drawing = engine.start(engine.check({"prompt": "a red apple", "model": model, "seed": 1}))
        next(event for event in drawing.events() if event.step)
        lap(f"{which} drawing, to its first step")
        drawing.stop()
        drawing.result()
        lap("_")
    took["twice"] = _twice()
    demo.close(verbose=False)
    queue.close()
    folder.cleanup()
    return took


def _twice() -> list[str]:
    """Files that are loaded as more than one module."""
    files: dict[str, list[str]] = {}
    for name, module in sys.modules.items():
        if (file := getattr(module, "__file__", None)) and getattr(module, "__name__", None) == name:
            files.setdefault(file, []).append(name)
    return [" = ".join(names) for names in files.values() if len(names) > 1]


def _child() -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.startup", "--steps"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        return json.loads(process.stdout.read().splitlines()[-1])


NOTES = {
    "import app": "the rest: ours, pydantic-settings, ruamel.yaml",
    "weights, and the classes that read them": "in app.py beside the page and its launch",
    "weights alone": "sketch, read again; aim ≤ 1.5 s",
    "first drawing, to its first step": "from engine.start, weights there",
    "second drawing, to its first step": "the same, warm",
}


def _start_rows(pages: list[float], split: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "median", "minimum", "CPU, minimum", "")]
    timed = f"{median(pages):.2f} s", f"{min(pages):.2f} s"
    rows.append(("**`python app.py`: process to page**", *timed, "", "from outside"))
    for name in split[0]:
        if name in ("_", "twice", "added"):
            continue
        wall, cpu = zip(*(one[name] for one in split), strict=True)
        times = (f"{seconds:.2f} s" for seconds in (median(wall), min(wall), min(cpu)))
        rows.append((name, *times, NOTES.get(name, "")))
    rows.append(("loaded twice", ", ".join(split[0]["twice"]) or "nothing", "", "", "files under two names"))
    added = ", ".join(split[0]["added"]) or "none"
    rows.append(("packages that only we import", added, "", "", "the libraries bring the others"))
    return rows


def _import_times() -> dict[str, float]:
    """Seconds of each module's own code, without what it imports."""
    command = [sys.executable, "-X", "importtime", "-c", "import app, pipeline.engine"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr.splitlines()
    modules: dict[str, float] = {}
    for line in lines:
        if found := re.fullmatch(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", line):
            modules[found[2]] = int(found[1]) / 1e6
    return modules


def _package_rows(modules: dict[str, float]) -> list[tuple[str, ...]]:
    seconds: dict[str, float] = defaultdict(float)
    for name, own in modules.items():
        package = name.partition(".")[0]
        seconds["ours" if package in OURS else package] += own
    rows = [
        (name, f"{total:.2f} s") for name, total in sorted(seconds.items(), key=lambda item: -item[1])[:TOP]
    ]
    if "ours" not in dict(rows):
        rows.append(("ours", f"{seconds['ours']:.2f} s"))
    return [("package", "own time"), *rows, (f"all {len(modules)} modules", f"{sum(seconds.values()):.2f} s")]


def _module_rows(modules: dict[str, float]) -> list[tuple[str, ...]]:
    longest = sorted(modules.items(), key=lambda item: -item[1])[:TOP]
    return [("module", "own time"), *((name, f"{took:.2f} s") for name, took in longest)]


if __name__ == "__main__":
    main()
