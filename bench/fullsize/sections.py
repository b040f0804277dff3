"""Which sections there are, and what the process of one part of one does. Imports nothing heavy: a section
may time its own imports.
"""

from __future__ import annotations

import importlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "found: "
"""Begins a line of a section's process that is a result."""


@dataclass(frozen=True)
class Section:
    """module, function: where in `measures` it is. parts: the module's name for its parts: a tuple, or a
    function of the folder and the chosen models. gpu: what it needs a CUDA GPU for; empty where it runs
    without."""

    module: str
    function: str
    parts: str = "PARTS"
    gpu: str = ""

    def load(self, name: str) -> Any:
        return getattr(importlib.import_module(f"bench.fullsize.measures.{self.module}"), name)


SECTIONS = {
    "cold": Section("cold", "cold"),
    "switch": Section("switch", "switch"),
    "cards": Section("cards", "cards", gpu="to limit this process's share of"),
    "plans": Section("cards", "plans", "PLAN_PARTS", gpu="to keep memory free on"),
    "stop": Section("stop", "stop"),
    "preview": Section("steps", "preview", "PREVIEW"),
    "oom": Section("oom", "oom", gpu="to run out of the memory of"),
    "steps": Section("steps", "steps", "parts"),
    "growth": Section("growth", "growth"),
    "workers": Section("workers", "workers"),
}


def section(name: str, part: str, folder: Path, only: list[str]) -> None:
    """What a section's process does: prints each result when it has it."""
    for key, found in SECTIONS[name].load(SECTIONS[name].function)(folder, only, part):
        print(MARK + json.dumps([key, found]), flush=True)
    for thread in threading.enumerate():  # one that still reads a file would bring the interpreter down
        if thread.name.startswith("drawing "):
            thread.join()
