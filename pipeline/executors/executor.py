"""What draws jobs: a device of this process, a process of its own, a GPU that ZeroGPU lends, an Inference
Provider. They take and give the same plain data, and differ in nothing else to whoever has jobs to draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.events import Event
from pipeline.request import Job
from pipeline.run import Cancel, Emit, Progress


@dataclass(frozen=True)
class Capabilities:
    """What an executor can do now. Plain data.

    models: ids of those that it draws. resident: ids of those that it could begin without loading. reason:
    why it can't begin to draw now, in words; empty where it could, or draws. lost: why it won't draw until
    the server is restarted, in words; empty where it will. restarts: how often another process took the place
    of the one that draws; what was loaded before is gone.
    """

    models: tuple[str, ...] = ()
    resident: tuple[str, ...] = ()
    reason: str = ""
    lost: str = ""
    restarts: int = 0


class Executor(Protocol):
    """Draws. Safe to use from any thread."""

    @property
    def at_once(self) -> int:
        """How many jobs it draws at a time; of more, each waits in `run` for its turn."""

    def capabilities(self) -> Capabilities:
        """Cheap, and asks no device."""

    def on_change(self, changed: Callable[[], None]) -> None:
        """changed: is called when `capabilities` change by themselves, not by `run` and `load`."""

    def gpu_memory(self) -> tuple[int, int] | None:
        """Bytes of its GPU that tensors take, and all that it has, as of its last job where another process
        draws; None: it has none of its own, or there is nobody to ask."""

    def run(self, job: Job, emit: Emit, cancel: Cancel) -> Event:
        """Draws a job to its end, and returns its last event, which was emitted too: finished, stopped, or
        failed in words. Where what draws was lost under it (its process, its hold of the GPU), the event has
        the code of errors.WorkerDied.

        Args:
            job: resolved, of a model that is one of `capabilities().models`.
            emit: as of `Run`. cancel: ends the job within one step, or at once while weights are read.
        """

    def load(self, model: str, progress: Progress) -> None:
        """Fetches and loads a model, so that its next drawing needn't; returns when it is there.

        Raises:
            StepwiseError: it can't be, in words. Stopped: from `progress`.
        """

    def kill(self) -> bool:
        """Ends what doesn't listen, with the process that draws it. Return False where that can't be done."""

    def close(self) -> None:
        """Ends what draws, without waiting for it. Nothing is to be run any more."""

    def join(self, seconds: float) -> None:
        """After `close`, waits for threads and processes to have ended: so many seconds at most."""
