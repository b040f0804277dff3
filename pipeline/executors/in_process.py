"""What the executors of this process have in common: their models, the turns of their jobs, and that there is
no process to end."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

from pipeline.catalog.spec import ModelSpec
from pipeline.events import Event
from pipeline.executors.turns import Turns
from pipeline.request import Job
from pipeline.run import Cancel, Emit, Progress, Run


class InProcess:
    """An executor of this process, as of Executor, without what differs."""

    at_once: int

    def __init__(self, specs: Sequence[ModelSpec], turns: Turns) -> None:
        """specs: the models that it draws. turns: of its jobs."""
        self._specs = {spec.id: spec for spec in specs}
        self._turns = turns

    def on_change(self, changed: Callable[[], None]) -> None:
        """Its capabilities don't change by themselves: nobody need be told."""

    def kill(self) -> bool:
        return False

    def close(self) -> None:
        self._turns.close()

    def join(self, seconds: float) -> None:
        self._turns.join(seconds)


class DrawnElsewhere(InProcess, abc.ABC):
    """An executor that has others draw: nothing is loaded here, and no memory of a GPU taken."""

    def gpu_memory(self) -> None:
        return None

    def load(self, model: str, progress: Progress) -> None:
        """Nothing is loaded ahead for a model that is drawn elsewhere."""

    def run(self, job: Job, emit: Emit, cancel: Cancel) -> Event:
        """As of Executor."""
        spec, run = self._specs[job.model], Run(job, emit, cancel)
        with self._turns.entered(cancel), run.concluded(spec.name, spec.license.url):
            self._turns.wait(cancel)
            run.begin()
            self._have_drawn(run, spec)
        return run.latest

    @abc.abstractmethod
    def _have_drawn(self, run: Run, spec: ModelSpec) -> None:
        """Has the job drawn, in the caller's thread and context.

        Raises:
            Stopped: cancelled. StepwiseError: it can't be drawn, in words.
        """
