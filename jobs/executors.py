"""Who draws a job that was claimed: this process, or a worker process of its own (supervisor.py)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from pipeline.drawing import Drawing
from pipeline.engine import Engine
from pipeline.request import Job


class Executor(Protocol):
    """One device, drawing one job at a time."""

    def start(self, job: Job) -> Drawing:
        """Begins to draw; returns at once. Where the process that draws dies, the drawing fails with the code
        of errors.WorkerDied.

        Raises:
            StepwiseError: it can't be drawn here.
        """

    def resident(self) -> Collection[str]:
        """Ids of the models that could begin without loading."""

    @property
    def ready(self) -> bool:
        """Whether it could begin to draw now."""

    def kill(self) -> bool:
        """Ends a drawing that doesn't listen, with the process that draws it. False: can't be done here."""

    def close(self) -> None:
        """Ends what draws, without waiting for it."""


def executors(engine: Engine) -> dict[str, list[Executor]]:
    """Who draws each line's jobs: all by this process, as many at once as the line's devices do."""
    here = InThisProcess(engine)
    lines = {engine.line(spec.id) for spec in engine.catalogue}
    return {line: [here] * engine.width(line) for line in lines}


class InThisProcess:
    """The engine of this process: its threads draw."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start(self, job: Job) -> Drawing:
        return self._engine.start(job)

    def resident(self) -> Collection[str]:
        return self._engine.ready_models()

    @property
    def ready(self) -> bool:
        return True

    def kill(self) -> bool:
        return False

    def close(self) -> None:
        pass
