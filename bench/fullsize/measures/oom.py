"""Running out of memory in the middle of a job: whether the job is drawn all the same on a cheaper plan, says
so, and leaves the next one alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.fullsize import drive

PARTS = ("one",)
LEFT = 0.25
"""GB that are left beside what is loaded: less than any step of a 1024² picture takes."""

Result = tuple[str, dict[str, Any]]


def oom(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """The first model, resident and warm; then this process's share of the GPU is cut to what is loaded."""
    total = torch.cuda.get_device_properties(0).total_memory
    catalogue = drive.catalogue(folder, only)
    engine, model = drive.engine(catalogue), drive.ids(catalogue)[0]
    for _ in range(2):
        usual = drive.draw(engine, model)
    before = drive.memory()
    yield "usual", {"model": model, **drive.outcome(usual.last), "memory": before}

    torch.cuda.set_per_process_memory_fraction((before["reserved"] + LEFT * drive.GB) / total)
    retries = torch.cuda.memory_stats()["num_ooms"]
    try:
        short = drive.draw(engine, model)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    found = drive.outcome(short.last) | {"seconds": short.first.get("finished")}
    found["out of memory"] = torch.cuda.memory_stats()["num_ooms"] - retries
    if short.last.images:
        found["to the usual picture"] = drive.difference(drive.pixels(usual.last), drive.pixels(short.last))
    yield "short of memory", found

    following = drive.draw(engine, model)
    found = drive.outcome(following.last) | {"memory": drive.memory()}
    if following.last.images:
        found["to the usual picture"] = drive.difference(
            drive.pixels(usual.last), drive.pixels(following.last)
        )
    yield "the next job", found
