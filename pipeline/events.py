"""What a reader of a drawing sees: full snapshots, each enough on its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Any, Literal

from pipeline.parameters import parameters
from pipeline.request import Job

Phase = Literal[
    "queued",
    "downloading",
    "loading",
    "encoding",
    "denoising",
    "decoding",
    "finished",
    "stopped",
    "failed",
]
LAST_PHASES = ("finished", "stopped", "failed")
DRAWN = tuple(parameter.name for parameter in parameters(but={"job"}))
"""The parameters that a job has under their names."""


@dataclass(frozen=True)
class Event:
    """How a drawing stands. Plain data: pickles, and says everything that happened so far.

    job: what is drawn. step: denoising steps done of the current image, 0 to job.steps. image: which
    image is being drawn, from 1. position: how many are ahead in the line, while queued; preload: the name
    of the model that one of these makes ready, empty where all are drawings. done, total: bytes while
    downloading (in all 0 until that is known), parts while loading. eta: seconds left, None while unknown.
    seconds: since its turn came. previews: a JPEG for each image begun. images: the finished PNGs.
    error: why it failed. code: which of errors.py's errors that is. plan: how the model is kept in memory
    (devices/memory_plans.py), once its turn has come. device: what draws, as "kind: name", once its turn has
    come; empty where that isn't known better than `Engine.device` does.
    provider: the Inference Provider that draws, whose steps are not seen: step is 0 until an image has come,
    and there are no previews before; None: this machine draws.
    """

    job: Job
    phase: Phase = "queued"
    step: int = 0
    image: int = 1
    position: int = 0
    preload: str = ""
    done: int = 0
    total: int = 0
    eta: float | None = None
    seconds: float = 0.0
    previews: tuple[bytes, ...] = ()
    images: tuple[bytes, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    code: str | None = None
    plan: str | None = None
    device: str = ""
    provider: str | None = None

    @property
    def steps(self) -> int:
        return self.job.steps

    @property
    def preview(self) -> bytes | None:
        """The newest preview, a JPEG; None before the first."""
        return self.previews[-1] if self.previews else None

    @property
    def last(self) -> bool:
        """Whether nothing comes after this event."""
        return self.phase in LAST_PHASES

    def changes(self, since: Event, but: Collection[str] = ()) -> dict[str, Any]:
        """What makes the event `since` this one, for `Run.update`; but: fields that are left out."""
        pairs = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in but}
        return {name: value for name, value in pairs.items() if value != getattr(since, name)}

    def info(self) -> dict[str, Any]:
        """The event without its pictures, as every API gives it."""
        job = self.job
        info: dict[str, Any] = {
            "job": job.id,
            "phase": self.phase,
            "step": self.step,
            "steps": job.steps,
            "image": self.image,
            "images": job.images,
            "eta": None if self.eta is None else round(self.eta, 2),
            "seconds": round(self.seconds, 2),
        }
        info |= {name: getattr(job, name) for name in DRAWN}
        info["warnings"] = list(self.warnings)
        if self.phase == "queued":
            info["position"] = self.position
            if self.preload:
                info["preload"] = self.preload
        if self.phase in ("downloading", "loading"):
            info |= {"done": self.done, "total": self.total}
        if self.plan is not None:
            info["plan"] = self.plan
        if self.provider is not None:
            info["provider"] = self.provider
        if self.error is not None:
            info["error"] = self.error
        return info
