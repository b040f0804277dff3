"""What a worker process (worker.py) and the server's side of it (process.py) say to each other over their
pipe: plain data. A file of its own, for a class of the module that a process is started with pickles as one
of `__main__`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.engine import EngineSpec
from pipeline.events import Phase
from pipeline.request import Job

# To the worker.


@dataclass(frozen=True)
class Configure:
    """The first message: what its engine is made from."""

    engine: EngineSpec


@dataclass(frozen=True)
class RunJob:
    """Draw this after what was asked for before."""

    job: Job


@dataclass(frozen=True)
class CancelJob:
    """End the job with this id."""

    job: str


@dataclass(frozen=True)
class LoadModel:
    """Fetch and load this model after what was asked for before."""

    model: str


@dataclass(frozen=True)
class CancelLoad:
    """Give up the loading of this model."""

    model: str


# From the worker.


@dataclass(frozen=True)
class WorkerStatus:
    """What the worker has; the first one says that it can draw. resident: as of Capabilities. gpu_memory: as
    of Executor."""

    resident: tuple[str, ...] = ()
    gpu_memory: tuple[int, int] | None = None


@dataclass(frozen=True)
class EventDelta:
    """A job has a new event: which fields changed since the last one that was told (the first one is
    `Event(job)` with the job's warnings)."""

    job: str
    changes: dict[str, Any]


@dataclass(frozen=True)
class LoadProgress:
    """How far a model is, as of `Progress.update`."""

    model: str
    phase: Phase
    done: int
    total: int


@dataclass(frozen=True)
class Loaded:
    """A model is there, or can't be: error says why, in words, and code which of errors.py's that is."""

    model: str
    error: str | None = None
    code: str | None = None
