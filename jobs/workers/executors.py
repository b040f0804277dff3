"""What draws the jobs of each line: executors of this process, or worker processes in their place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch

from jobs.workers.process import WorkerProcess
from pipeline.devices.hardware import GB, free_host_memory
from pipeline.engine import Engine, EngineSpec
from pipeline.executors.executor import Executor


def executors(
    engine: Engine, spec: EngineSpec | None = None, workers: int = 0
) -> Mapping[str, list[Executor]]:
    """Return what draws each line's jobs, by line (`Engine.line`).

    Args:
        spec: what a worker's engine is made from; with it `workers` processes draw on the GPUs, one each
            (where there is none, on the CPU). All else is drawn by this process.
    """
    found: dict[str, list[Executor]] = {line: [one] for line, one in engine.executors.items()}
    line = "cuda" if "cuda" in found else "cpu"
    if spec is not None and workers and line in found:
        models = found[line][0].capabilities().models
        spare = line == "cuda"
        found[line] = [WorkerProcess(_share(spec, workers), n, models, spare) for n in range(workers)]
    return found


def gpus(engine: Engine) -> int:
    """Return how many GPUs workers could have, one each: none on ZeroGPU, which lends its own."""
    return torch.cuda.device_count() if "cuda" in engine.executors else 0


def lost_for_good(executors: Collection[Executor]) -> str:
    """Return why none of these will draw until the server is restarted, in words; empty where one will."""
    reasons = [executor.capabilities().lost for executor in executors]
    return reasons[0] if reasons and all(reasons) else ""


def _share(spec: EngineSpec, workers: int) -> EngineSpec:
    """Gives each worker its part of the host's memory."""
    if workers == 1:
        return spec
    host = spec.wanted.host_memory
    each = (free_host_memory() / GB if host is None else host) / workers
    return replace(spec, wanted=replace(spec.wanted, host_memory=each))
