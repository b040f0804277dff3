"""Changing the model: how long until the other one draws, by where its weights were, and whether sixty
changes leave memory where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.fullsize import drive

PARTS = ("gpu", "host")
ROUNDS = 20
"""Times that each model is changed to."""
FILLING = 8
"""Rounds before these: as many prompts as the cache of embeddings holds."""
HEADROOM = 4.5
"""GB beside the weights of the largest model: drawing fits, a second transformer doesn't."""

Result = tuple[str, dict[str, Any]]


def switch(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """Part gpu: all models fit. Part host: only one does, so the others wait in host memory."""
    catalogue = drive.catalogue(folder, only)
    models = [spec.id for spec in catalogue if spec.family == "sd3"] or drive.ids(catalogue)
    if len(models) < 2:
        yield part, {"skipped": "needs two models to change between."}
        return
    budget = None
    if part == "host":
        if not torch.cuda.is_available():
            yield part, {"skipped": "needs a CUDA GPU: on the CPU there is one kind of memory."}
            return
        sizes = [sum(f.stat().st_size for f in drive.weights_files(catalogue[model])) for model in models]
        budget = max(sizes) / drive.GB + HEADROOM
    engine = drive.engine(catalogue, gpu_memory=budget)
    for _ in range(2):
        for model in models:
            _until_step(engine, model, 0)
    same = {model: _same(engine, model) for model in models}
    # What the counted rounds begin with is as they leave it: also the cache of embeddings is full by now.
    for number in range(FILLING):
        for model in models:
            _until_step(engine, model, -10 - number)
    before, began = drive.memory(), time.monotonic()
    found: dict[str, list[tuple[float | None, float]]] = {model: [] for model in models}
    for number in range(ROUNDS):
        for model in models:
            found[model].append(_until_step(engine, model, number + 1))
    seconds = time.monotonic() - began
    after = drive.memory()
    for model, times in found.items():
        encodings = [one for one, _ in times if one is not None]
        steps = [two for _, two in times]
        yield (
            f"{part}: to {model}",
            {
                "plan": drive.plan_of(engine, catalogue[model]),
                "to encoding": _spread(encodings),
                "to first step": _spread(steps),
                "to first step, same model": same[model],
                "extra": median(steps) - same[model],
            },
        )
    yield (
        f"{part}: memory",
        {
            "switches": ROUNDS * len(models),
            "seconds": seconds,
            "budget": budget,
            "before": before,
            "after": after,
            "tiers": drive.tiers(engine),
        },
    )


def _spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"count": 0}
    return {"count": len(seconds), "median": median(seconds), "max": max(seconds)}


def _until_step(engine: Any, model: str, number: int) -> tuple[float | None, float]:
    """Draws until the first step, and stops: seconds from engine.start to the encoding phase (None where it
    was over before it was seen) and to the first step. The prompt is new, so that it is encoded."""
    drawing, began = drive.start(engine, model, prompt=f"{drive.PROMPT}, {model} {number}", steps=2)
    encoding = None
    for event in drawing.events():
        now = time.monotonic() - began
        if event.phase == "encoding" and encoding is None:
            encoding = now
        if event.step >= 1 or event.last:
            break
    drawing.stop()
    ended = drawing.result()
    if ended.phase == "failed":
        raise SystemExit(f"{model}: {ended.error}")
    return encoding, now


def _same(engine: Any, model: str, times: int = 5) -> float:
    """Seconds to the first step where this model drew last, too: what a change is held against."""
    _until_step(engine, model, -1)
    return median(_until_step(engine, model, -2 - time_)[1] for time_ in range(times))
