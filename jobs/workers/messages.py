"""What a worker process (worker.py) and its supervisor (process.py) say to each other over their pipe. A
file of its own, for a class of the module that a process is started with pickles as one of `__main__`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engine import EngineSpec
from pipeline.request import Job

# To the worker.


@dataclass(frozen=True)
class Begin:
    """The first message. preload: ids of the models to make ready, in this order."""

    engine: EngineSpec
    preload: tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """Draw this, now."""

    job: Job


@dataclass(frozen=True)
class Stop:
    """Stop the job with this id."""

    job: str


# From the worker.


@dataclass(frozen=True)
class Standing:
    """What the worker has; the first one says that it can draw. resident: as of Executor. coming: as of
    `Preloads.all`. gpu_memory: as of Executor."""

    resident: tuple[str, ...] = ()
    coming: Mapping[str, dict[str, Any]] | None = None
    gpu_memory: tuple[int, int] | None = None


@dataclass(frozen=True)
class Changed:
    """A drawing has a new event: which fields changed since the last one that was told (the first one is
    `Event(job)` with the job's warnings)."""

    job: str
    changes: dict[str, Any]
