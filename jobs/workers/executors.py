"""Who draws a job that was claimed: this process, or a worker process of its own (process.py)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from jobs.store.models import WITH_VISITOR
from jobs.workers.process import WorkerProcess
from pipeline.devices.hardware import GB, free_host_memory
from pipeline.drawing import Drawing
from pipeline.engine import Engine, EngineSpec
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

    @property
    def reason(self) -> str:
        """Why nothing can be drawn here, in words; empty where something can, or is."""

    @property
    def lost(self) -> str:
        """Why nothing will be drawn here until the server is restarted, in words; empty where something
        will."""

    def lose(self) -> bool:
        """Told that a drawing ended with the code of errors.WorkerDied. Whether another process takes the
        place of the one that drew it; else `lost` says what is to be done."""

    def gpu_memory(self) -> tuple[int, int] | None:
        """Bytes of its GPU that tensors take, and all that it has; None: it draws on none, or there is nobody
        to ask. A worker tells it at its start and after each drawing."""

    def kill(self) -> bool:
        """Ends a drawing that doesn't listen, with the process that draws it. False: can't be done here."""

    def close(self) -> None:
        """Ends what draws, without waiting for it."""

    def join(self, seconds: float) -> None:
        """After `close`, waits for its threads and processes to have ended: so many seconds at most."""


def executors(
    engine: Engine, spec: EngineSpec | None = None, workers: int = 0, preload: Sequence[str] = ()
) -> dict[str, list[Executor]]:
    """Who draws each line's jobs, by line.

    Args:
        spec: what a worker's engine is made from; with it `workers` processes draw on the GPUs, one each
            (where there is none, on the CPU). All else is drawn by this process.
        preload: models that are made ready by whoever will draw with them.
    """
    lines = {engine.line(one.id) for one in engine.catalogue}
    found: dict[str, list[Executor]] = {
        line: [InThisProcess(engine, line)] * engine.width(line) for line in sorted(lines)
    }
    away = "cuda" if "cuda" in lines else "cpu"
    if spec is not None and workers and away in lines:
        theirs = [model for model in preload if engine.line(model) == away]
        preload = [model for model in preload if model not in theirs]
        on_gpu = away == "cuda"
        several = [WorkerProcess(_share(spec, workers), number, theirs, on_gpu) for number in range(workers)]
        engine.preloads.also(lambda: several[0].coming)
        found[away] = list(several)
    engine.preload(*preload)
    return found


def gpus(engine: Engine) -> int:
    """GPUs that workers could have, one each: none on ZeroGPU, which lends its own."""
    lines = {engine.line(one.id) for one in engine.catalogue}
    return torch.cuda.device_count() if "cuda" in lines else 0


def _share(spec: EngineSpec, workers: int) -> EngineSpec:
    """Each worker takes its part of the host's memory."""
    if workers == 1:
        return spec
    host = spec.wanted.host_memory
    each = (free_host_memory() / GB if host is None else host) / workers
    return replace(spec, wanted=replace(spec.wanted, host_memory=each))


def lost_for_good(executors: Collection[Executor]) -> str:
    """Why none of these will draw until the server is restarted, in words; empty where one will."""
    reasons = [executor.lost for executor in executors]
    return reasons[0] if reasons and all(reasons) else ""


class InThisProcess:
    """The engine of this process: its threads draw."""

    def __init__(self, engine: Engine, line: str) -> None:
        """line: whose jobs it draws."""
        self._engine, self._line = engine, line
        self._lost = ""

    def start(self, job: Job) -> Drawing:
        return self._engine.start(job)

    def resident(self) -> Collection[str]:
        return self._engine.ready_models()

    @property
    def ready(self) -> bool:
        return not self._lost

    @property
    def reason(self) -> str:
        return self._lost

    @property
    def lost(self) -> str:
        return self._lost

    def lose(self) -> bool:
        if self._line == WITH_VISITOR:
            return True  # each process that ZeroGPU lends is another
        self._lost = "The GPU failed, and this server can't use it any more: restart the server."
        return False

    def gpu_memory(self) -> tuple[int, int] | None:
        return self._engine.gpu_memory()

    def kill(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def join(self, seconds: float) -> None:
        pass  # the engine's own threads are ended by whoever closes it
