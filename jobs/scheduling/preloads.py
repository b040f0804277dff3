"""Models that are made ready before anyone asks for them, and how far each is. An executor loads them one
after the other, while no job waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipeline.errors import StepwiseError, Stopped, WorkerDied
from pipeline.events import Phase
from pipeline.executors.executor import Executor
from pipeline.run import Cancel, Preparation

log = logging.getLogger("stepwise")


@dataclass(frozen=True)
class Coming:
    """How far a model is. phase: `queued` until it is fetched or loaded. done, total: bytes while
    downloading, networks while loading. error: why it failed, and what to do."""

    phase: Literal["queued", "downloading", "loading", "failed"] = "queued"
    done: int = 0
    total: int = 0
    error: str | None = None


class Preloads:
    """The models of one server that are made ready at its start. Safe to use from any thread."""

    def __init__(self, models: Sequence[str], reasons: Callable[[str], str]) -> None:
        """
        Args:
            models: their ids, in this order. reasons: why a model can't run here, empty where it can.
        """
        self._coming: dict[str, Coming] = {model: Coming() for model in models}
        self._cancel = Cancel()
        self._loading: dict[Executor, str] = {}
        self.models: list[str] = []
        """Those that can run here, in their order."""
        for model in models:
            if reason := reasons(model):
                self._fail(model, reason)
            else:
                self.models.append(model)

    def coming(self) -> Mapping[str, dict[str, Any]]:
        """How far each model is that isn't ready yet, as plain data, by id."""
        return {model: asdict(coming) for model, coming in self._coming.copy().items()}

    def loading(self, executors: Collection[Executor]) -> list[str]:
        """Which models these executors load now."""
        return [model for executor, model in self._loading.copy().items() if executor in executors]

    def load(self, executor: Executor, model: str) -> None:
        """Has an executor load a model; one that fails says why in `coming`."""
        self._loading[executor] = model
        try:
            executor.load(model, Preparation(lambda *at: self.update(model, *at), self._cancel))
            self.arrived(model)
        except (Stopped, WorkerDied):  # the process that takes the dead one's place begins anew
            pass
        except StepwiseError as error:
            self.failed(model, error)
        finally:
            del self._loading[executor]

    def update(self, model: str, phase: Phase, done: int, total: int) -> None:
        """Notes how far a model is, if it is one that is made ready and hasn't failed."""
        coming = self._coming.get(model)
        if coming is not None and coming.phase != "failed" and phase in ("queued", "downloading", "loading"):
            self._coming[model] = replace(coming, phase=phase, done=done, total=total)

    def arrived(self, model: str) -> None:
        """Notes that a model is loaded, for itself or by a job."""
        self._coming.pop(model, None)

    def failed(self, model: str, error: StepwiseError) -> None:
        """Notes that a model can't be fetched or loaded."""
        if model in self._coming:
            log.warning("%s can't be made ready: %s", model, error, exc_info=error.__cause__)
            self._fail(model, str(error))

    def has_failed(self, model: str) -> bool:
        """Whether the model can't be fetched or loaded, so that it isn't tried again."""
        coming = self._coming.get(model)
        return coming is not None and coming.phase == "failed"

    def begin_again(self, models: Sequence[str]) -> None:
        """Notes that these models are to be loaded anew, by a process that has nothing yet."""
        self._coming.update({model: Coming() for model in models})

    def is_coming(self, model: str) -> bool:
        """Whether the model is still to be fetched and loaded."""
        coming = self._coming.get(model)
        return coming is not None and coming.phase != "failed" and not self._cancel.is_set

    def close(self) -> None:
        """Gives up what is coming."""
        self._cancel.set()

    def _fail(self, model: str, words: str) -> None:
        self._coming[model] = Coming("failed", error=words)
