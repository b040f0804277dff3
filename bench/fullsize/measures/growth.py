"""Whether the process grows with every drawing, and what it grows with: one model, drawing after drawing,
each ended after its first step.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.fullsize import drive
from pipeline.catalog.catalogue import Catalogue

PARTS = ("new prompts", "one prompt")
"""A new prompt is encoded; one prompt's embeddings come from the cache."""
DRAWINGS = 200
LOOKS = 4
"""Times that memory is looked at after the first drawings, at even distances."""

Result = tuple[str, dict[str, Any]]


def growth(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """The smallest model. part: of PARTS."""
    spec = min(
        drive.catalogue(folder, only),
        key=lambda spec: sum(file.stat().st_size for file in drive.weights_files(spec)),
    )
    engine = drive.engine(Catalogue([spec]))
    each = DRAWINGS // LOOKS
    _draw(engine, spec.id, part, range(-each, 0))  # fills the cache of embeddings
    looks = [_look()]
    for look in range(LOOKS):
        _draw(engine, spec.id, part, range(look * each, (look + 1) * each))
        looks.append(_look())
    yield part, {"model": spec.id, "drawings": each * LOOKS, "looks": looks}


def _draw(engine: Any, model: str, part: str, numbers: range) -> None:
    for number in numbers:
        prompt = drive.PROMPT if part == "one prompt" else f"{drive.PROMPT}, {number}"
        drawing, _ = drive.start(engine, model, prompt=prompt, steps=2)
        for event in drawing.events():
            if event.step or event.last:
                break
        drawing.stop()
        if (ended := drawing.result()).phase == "failed":
            raise SystemExit(f"{model}: {ended.error}")


def _look() -> dict[str, float]:
    """Bytes held, also after the C library gave back what it keeps free, and the numbers of Python objects
    and of tensors."""
    found = drive.memory()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        found["trimmed"] = drive.memory()["anonymous"]
    objects = gc.get_objects()
    found["objects"] = len(objects)
    found["tensors"] = sum(issubclass(type(one), torch.Tensor) for one in objects)
    return found
