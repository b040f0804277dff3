"""Smaller cards than the one that is there: each model under a limit on what this process may take, the plan
that the engine chose for it, its peak and its picture beside the one of the whole card. The limit bounds
torch's allocator; 1 GB of the card is kept for the CUDA context, which it doesn't count.
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

CARDS = (80, 48, 24, 16)
PARTS = ("whole card", *(f"{card} GB" for card in CARDS))
CONTEXT = 1
"""GB of a card that CUDA's context and libraries take."""
STEPS = 6

Result = tuple[str, dict[str, Any]]


def cards(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """Every model on one card, twice: the first picture loads, the second is timed. Part: PARTS."""
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
        "two runs": drive.difference(*shown),
        "spread": float(shown[0].std()),
    }
    pictures.mkdir(exist_ok=True)
    whole = pictures / f"{spec.id}.npy"
    if part == PARTS[0]:
        np.save(whole, shown[0])
    elif whole.exists():
        found["to the whole card"] = drive.difference(np.load(whole), shown[0])
    return found
