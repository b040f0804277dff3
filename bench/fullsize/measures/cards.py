"""Smaller cards than the one that is there: each model under a limit on what this process may take, the plan
that the engine chose for it, its peak and its picture beside the one of the whole card. The limit bounds
torch's allocator; 1 GB of the card is kept for the CUDA context, which it doesn't count. And every plan on
the whole card, for what it takes where nothing presses.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.fullsize import drive
from pipeline.devices.memory_plans import PLANS

CARDS = (80, 48, 24, 16)
PARTS = ("whole card", *(f"{card} GB" for card in CARDS))
PLAN_PARTS = tuple(f"plan {plan.name}" for plan in PLANS)
CONTEXT = 1
"""GB of a card that CUDA's context and libraries take."""
STEPS = 6

Result = tuple[str, dict[str, Any]]


def cards(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """Every model on one card, twice: the first picture loads, the second is timed. One engine draws them
    all, so a peak includes what stays of the models before. Part: PARTS."""
    total = torch.cuda.get_device_properties(0).total_memory / drive.GB
    limit = None
    if found := re.match(r"\d+", part):
        limit = float(found[0]) - CONTEXT
        if limit > total:
            yield part, {"skipped": f"this card has {total:.0f} GB."}
            return
        torch.cuda.set_per_process_memory_fraction(limit / total)
    catalogue = drive.catalogue(folder, only)
    engine = drive.engine(catalogue, gpu_memory=limit)
    for spec in catalogue:
        yield f"{part}: {spec.id}", _pictures(engine, spec, folder / "pictures", part)


def plans(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """Every model under one plan, without a limit, alone in an engine of its own. Part: PLAN_PARTS."""
    catalogue = drive.catalogue(folder, only)
    for spec in catalogue:
        engine = drive.engine(catalogue, plan=part.removeprefix("plan "))
        yield f"{part}: {spec.id}", _pictures(engine, spec, folder / "pictures", part)
        del engine
        drive.settle()


def _pictures(engine: Any, spec: Any, pictures: Path, part: str) -> dict[str, Any]:
    found: dict[str, Any] = {"plan": drive.plan_of(engine, spec)}
    if reason := engine.reason(spec):
        return found | {"phase": "unavailable", "error": reason}
    steps = min(STEPS, spec.defaults.steps)
    torch.cuda.reset_peak_memory_stats()
    shown = []
    for _ in range(2):
        began = time.monotonic()
        ended = drive.draw(engine, spec.id, steps=steps).last
        seconds = time.monotonic() - began
        found |= drive.outcome(ended) | {
            "steps": steps,
            "second picture" if shown else "first picture": seconds,
        }
        if ended.phase != "finished":
            return found
        shown.append(drive.pixels(ended))
    found |= {
        "allocated": torch.cuda.max_memory_allocated() / drive.GB,
        "reserved": torch.cuda.max_memory_reserved() / drive.GB,
        "weights": drive.tiers(engine),
        "two runs": drive.difference(*shown),
        "spread": float(shown[0].std()),
    }
    pictures.mkdir(exist_ok=True)
    whole = pictures / f"{spec.id}.npy"
    if part in (PARTS[0], PLAN_PARTS[0]):
        np.save(whole, shown[0])
    elif whole.exists():
        found["to the whole card"] = drive.difference(np.load(whole), shown[0])
    return found
