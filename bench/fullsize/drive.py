"""What the sections share: the app's own engine over the rehearsal's models.yaml, a drawing followed from
event to event, and what the process and the GPU hold. Measures nothing by itself.
"""

from __future__ import annotations

import gc
import io
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.catalog.catalogue import Catalogue, read_catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.devices.hardware import Wanted
from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.run import Drawing

PROMPT = 'a red fox in the snow beside a sign that says "STEPWISE", late evening light'
SEED = 20261124
GB = 10**9


def catalogue(folder: Path, only: list[str]) -> Catalogue:
    """The rehearsal's models, in the file's order; only: their ids, none: all."""
    found = read_catalogue(folder / "models.yaml")
    return Catalogue([spec for spec in found if not only or spec.id in only])


def ids(found: Catalogue) -> list[str]:
    return [spec.id for spec in found]


def engine(found: Catalogue, gpu_memory: float | None = None, plan: Any = None) -> Engine:
    """The app's engine. gpu_memory: GB of the GPU that it may take, None: what is free. plan: every model's,
    None: the fastest that fits."""
    return Engine(found, Wanted(gpu_memory=gpu_memory, plan=plan))


def plan_of(one: Engine, spec: ModelSpec) -> str:
    """The memory plan that the engine chose for this model, or why none fits, in its words."""
    if reason := one.reason(spec):
        return reason
    plan = one.plan(spec)
    return "no plan" if plan is None else plan.name


@dataclass
class Followed:
    """One drawing seen to its end. first: phase → seconds from the start to its first event that was seen;
    steps: step → seconds; preview: seconds to the first preview; last: the last event."""

    last: Event
    first: dict[str, float] = field(default_factory=dict)
    steps: dict[int, float] = field(default_factory=dict)
    preview: float | None = None

    def between(self, phase: str, after: str) -> float | None:
        """Seconds from the first event of one phase to that of another; None where one was not seen."""
        if phase in self.first and after in self.first:
            return self.first[after] - self.first[phase]
        return None

    @property
    def step_seconds(self) -> float | None:
        """Seconds per step: denoising, previews included, over the number of steps."""
        whole = self.between("denoising", "decoding")
        return None if whole is None else whole / self.last.job.steps


def draw(one: Engine, model: str, **values: Any) -> Followed:
    """Starts this model's default job with PROMPT and follows it to its end."""
    return follow(start(one, model, **values)[0])


def start(one: Engine, model: str, **values: Any) -> tuple[Drawing, float]:
    """The drawing and when (time.monotonic) it was started."""
    job = one.check({"prompt": PROMPT, "model": model, "seed": SEED} | values)
    began = time.monotonic()
    return one.start(job), began


def follow(drawing: Drawing, began: float | None = None) -> Followed:
    began = time.monotonic() if began is None else began
    seen = Followed(drawing.latest)
    for event in drawing.events():
        now = time.monotonic() - began
        seen.last = event
        seen.first.setdefault(event.phase, now)
        if event.phase == "denoising" and event.step:
            seen.steps.setdefault(event.step, now)
        if seen.preview is None and event.previews:
            seen.preview = now
    return seen


def until(drawing: Drawing, phase: str) -> float | None:
    """When (time.monotonic) the drawing's first event of this phase was seen; None where it never was. A
    phase that is over before its reader wakes is missed."""
    for event in drawing.events():
        if event.phase == phase:
            return time.monotonic()
        if event.last:
            return None
    return None


def outcome(event: Event) -> dict[str, Any]:
    """How a drawing ended, as far as a result needs it: phase, plan, warnings, error."""
    found: dict[str, Any] = {"phase": event.phase, "warnings": list(event.warnings)}
    if event.plan:
        found["plan"] = event.plan
    if event.error:
        found["error"] = event.error
    return found


def pixels(event: Event) -> np.ndarray:
    """The picture, [height, width, 3], 0 to 255."""
    with Image.open(io.BytesIO(event.images[0])) as image:
        return as_pixels(image)


def as_pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(np.int16)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of the pixels' values (0 to 255)."""
    return float(np.abs(one - other).mean())


def memory() -> dict[str, float]:
    """What is held now, in bytes: by tensors and by torch's allocator on the GPU, by the process (resident,
    and the anonymous part of it), and pinned host memory as far as torch's allocator counts it."""
    settle()
    status = Path("/proc/self/status")
    kept = (
        dict(re.findall(r"^(\w+):\s+(\d+) kB", status.read_text(), re.MULTILINE)) if status.exists() else {}
    )
    found = {
        name: int(kept.get(key, 0)) * 1024.0 for name, key in (("rss", "VmRSS"), ("anonymous", "RssAnon"))
    }
    if torch.cuda.is_available():
        found["allocated"] = torch.cuda.memory_allocated()
        found["reserved"] = torch.cuda.memory_reserved()
        if hasattr(torch.cuda, "host_memory_stats"):
            found["pinned"] = torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)
    return found


def settle() -> None:
    """Waits for threads of drawings that have ended, and gives back what nobody refers to."""
    for thread in threading.enumerate():
        if thread.name.startswith("drawing "):
            thread.join(10)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def tiers(one: Engine) -> dict[str, float]:
    """GB of loaded components by tier: device, host."""
    found: dict[str, float] = {}
    for part in one.residency():
        found[part.tier] = found.get(part.tier, 0.0) + part.size / GB
    return found


def weights_files(spec: ModelSpec) -> list[Path]:
    """The files of this model's weights."""
    return sorted(Path(spec.source).rglob("*.safetensors"))
