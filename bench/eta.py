"""Is what a waiting visitor is told true? Each job's ETA beside what it then took.

    python -m bench.eta

The app's own queue in this process, over two models: Sketch, and one of its shape with twice the layers and
random weights. Five persons ask for pictures of either, of several sizes, steps and numbers, some at once and
some later, from a fixed seed. Of each job that waited, two of the estimates that it
was told: the first one, and the last one before half of its wait was over.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.support.table import ROOT, command_line, percentile, scratch, setting, table

SEED = 20261124
PERSONS = 5
REQUESTS = [
    {"steps": steps, "width": width, "height": height, "guidance": guidance, "images": images}
    for steps, width, height, guidance, images in (
        *((8, 128, 128, 3.5, 1), (28, 256, 256, 3.5, 1), (28, 256, 256, 0, 1), (16, 192, 256, 3.5, 2)),
        *((20, 384, 256, 3.5, 1), (12, 128, 256, 0, 3), (40, 192, 192, 3.5, 1), (10, 320, 320, 3.5, 1)),
    )
]
PAUSE = 6.0
"""Seconds: the longest pause of a person between a picture and the next request."""
MODELS = ("sketch", "deep")
AT_ONCE = 2
"""Jobs that a person has at the same time."""


@dataclass
class Told:
    """One job. estimates: (when, seconds it was told) while it waited; asked, begun, ended: when, by
    time.monotonic()."""

    asked: float
    begun: float | None = None
    ended: float = 0.0
    estimates: list[tuple[float, float]] = field(default_factory=list)

    def error(self, by: float) -> float | None:
        """Of the last estimate until that moment: by how much it missed what was left, relative to that;
        below 0 where it promised too little. None: there was none."""
        known = [one for one in self.estimates if one[0] <= by]
        if not known:
            return None
        at, seconds = known[-1]
        return seconds / (self.ended - at) - 1

    @property
    def first(self) -> float | None:
        return self.error(self.estimates[0][0]) if self.estimates else None

    @property
    def halfway(self) -> float | None:
        return None if self.begun is None else self.error((self.asked + self.begun) / 2)


def run(jobs: int, folder: Path, seed: int = SEED) -> list[Told]:
    """So many jobs of each person; folder: for the jobs, and the second model."""
    from jobs.data_dir.folder import DataFolder
    from jobs.limits import Limits
    from jobs.queue import Queue
    from jobs.workers.executors import executors
    from pipeline.engine import EngineSpec

    engine = EngineSpec(_models(folder)).engine()
    queue = Queue(engine, DataFolder(folder / "data"), executors(engine), Limits(), MODELS)
    found: list[Told] = []
    chance = random.Random(seed)
    _learn(queue)
    threads = [
        threading.Thread(
            target=_person, args=(queue, f"address:{person}", jobs, random.Random(chance.random()), found)
        )
        for person in range(PERSONS)
        for _ in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close()
    return found


def _models(folder: Path) -> Path:
    """A models.yaml of both; the second is Sketch but for its transformer."""
    import yaml
    from diffusers import SD3Transformer2DModel

    sketch = ROOT / "weights" / "sketch"
    deep = folder / "deep"
    shutil.copytree(sketch, deep, ignore=shutil.ignore_patterns("transformer"))
    config = SD3Transformer2DModel.load_config(sketch / "transformer")
    torch.manual_seed(SEED)
    network = SD3Transformer2DModel.from_config({**config, "num_layers": 2 * config["num_layers"]})
    network.save_pretrained(deep / "transformer")
    entries = yaml.safe_load((ROOT / "models.yaml").read_text("utf-8"))
    entry = next(entry for entry in entries if entry["id"] == "sketch") | {"source": str(sketch)}
    path = folder / "models.yaml"
    path.write_text(yaml.safe_dump([entry, entry | {"id": "deep", "name": "Deep", "source": str(deep)}]))
    return path


def _learn(queue: Any) -> None:
    """Two drawings of each model before anyone waits: a device that never drew knows nothing."""
    from jobs.store.models import Owner

    for model in MODELS:
        for request in REQUESTS[:2]:
            queue.start(_job(queue, model, request, 0), Owner("address:first"), "detached").result()


def _person(queue: Any, person: str, jobs: int, chance: random.Random, found: list[Told]) -> None:
    from jobs.store.models import Owner

    for _ in range(jobs):
        time.sleep(chance.uniform(0, PAUSE))
        job = _job(queue, chance.choice(MODELS), chance.choice(REQUESTS), chance.randrange(9999))
        following = queue.start(job, Owner(person), "detached")
        told = Told(time.monotonic())
        for event in following.events():
            now = time.monotonic()
            if event.phase == "queued" and event.eta is not None:
                told.estimates.append((now, event.eta))
            elif event.phase != "queued" and told.begun is None:
                told.begun = now
            told.ended = now
        found.append(told)


def _job(queue: Any, model: str, request: dict[str, Any], seed: int) -> Any:
    return queue.engine.check({"prompt": "a red apple", "model": model, "seed": seed} | request)


def report(found: list[Told]) -> str:
    waits = [one.begun - one.asked for one in found if one.estimates and one.begun is not None]
    rows: list[tuple[str, ...]] = [("estimate", "jobs", "median error", "p90", "median, with its sign")]
    for name, errors in (
        ("the first that was told", [one.first for one in found]),
        ("the last before half of the wait", [one.halfway for one in found]),
    ):
        known = [error for error in errors if error is not None]
        sizes = [abs(error) for error in known]
        rows.append(
            (
                *(name, f"{len(known)}", f"{median(sizes):.0%}", f"{percentile(sizes, 0.9):.0%}"),
                f"{median(known):+.0%}",
            )
        )
    told = f"\n{len(found)} jobs; {len(waits)} were told an estimate; median wait {median(waits):.1f} s."
    return table("Told and taken", rows) + "\n" + told


def main() -> None:
    parser = command_line("eta", __doc__)
    parser.add_argument("--jobs", type=int, default=6, help="of each of ten threads of requests (default 6)")
    asked = parser.parse_args()
    print(
        setting(
            f"Sketch and a model of twice its layers on the CPU, {len(REQUESTS)} kinds of request (8 to 40 "
            "steps, 128² to 384 × 256, 1 to 3 images, with guidance and without); "
            f"{PERSONS} persons with {AT_ONCE} jobs at a time, pauses of 0 to {PAUSE:g} s; two drawings of "
            f"each model before, from which the pace is known. Seed {SEED}."
        ),
        flush=True,
    )
    with scratch() as folder:
        print(report(run(asked.jobs, folder)))


if __name__ == "__main__":
    main()
