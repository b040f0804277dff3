"""How soon a drawing has stopped after `stop()`, in each of its phases, and a step's length beside it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.fullsize import drive
from pipeline.catalog.catalogue import Catalogue

PARTS = ("one",)
TIMES = 5
"""Stops in each phase, at even distances through it."""
PHASES = {"loading": "encoding", "encoding": "denoising", "denoising": "decoding", "decoding": "finished"}
"""Each phase and the one that follows."""

Result = tuple[str, dict[str, Any]]


def stop(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """The first model: a whole drawing, for the lengths of its phases; then stops all along it."""
    catalogue = drive.catalogue(folder, only)
    model = drive.ids(catalogue)[0]
    _stop_loading(catalogue, model, 3600, -1)  # a process's first loading imports the classes, too
    engine = drive.engine(catalogue)
    loading = drive.draw(engine, model).between("loading", "encoding") or 0.0
    whole = drive.draw(engine, model, prompt=f"{drive.PROMPT}, once more")
    lengths = {phase: whole.between(phase, after) or 0.0 for phase, after in PHASES.items()}
    lengths["loading"] = loading
    step = whole.step_seconds
    yield "step", {"model": model, "step": step, "lengths": lengths}
    for phase in ("encoding", "denoising", "decoding"):
        yield phase, _stops(engine, model, phase, lengths[phase])
    del engine
    yield (
        "loading",
        _summary(
            [_stop_loading(catalogue, model, loading * number / TIMES, number) for number in range(TIMES)]
        ),
    )


def _stop_loading(catalogue: Catalogue, model: str, after: float, number: int) -> tuple[float, str, str]:
    """As `_stop`, in an engine of its own that has loaded nothing."""
    drive.settle()
    return _stop(drive.engine(catalogue), model, "loading", after, number)


def _stops(engine: Any, model: str, phase: str, length: float) -> dict[str, Any]:
    return _summary([_stop(engine, model, phase, length * number / TIMES, number) for number in range(TIMES)])


def _summary(stops: list[tuple[float, str, str]]) -> dict[str, Any]:
    seconds = [latency for latency, _, ended in stops if ended == "stopped"]
    return {
        "times": len(stops),
        "in phase": dict(Counter(at for _, at, _ in stops)),
        "ended": dict(Counter(ended for _, _, ended in stops)),
        "median": median(seconds) if seconds else None,
        "max": max(seconds, default=None),
    }


def _stop(engine: Any, model: str, phase: str, after: float, number: int) -> tuple[float, str, str]:
    """Stops a drawing `after` seconds of this phase: seconds until its last event was there, the phase that
    it was in, and its last phase. One that was over before stays `finished`."""
    drawing, _ = drive.start(engine, model, prompt=f"{drive.PROMPT}, {phase} {number}")
    drive.until(drawing, phase)
    whole = threading.Thread(target=drawing.result, daemon=True)
    whole.start()
    whole.join(after)
    at, began = drawing.latest.phase, time.monotonic()
    drawing.stop()
    ended = drawing.result().phase
    return time.monotonic() - began, at, ended
