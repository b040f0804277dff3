"""The one core: `engine.run(job, emit, cancel)` draws a job in the caller's thread, to its end.

The engine knows the models and has the executors that draw them: this machine's devices, Inference Providers,
and GPUs that ZeroGPU lends. The queue, the page and every API stand in front of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.catalog.catalogue import Catalogue, read_catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.devices.hardware import ANY, Wanted, device_for, plan_for
from pipeline.devices.memory_plans import Plan
from pipeline.devices.threads import start_thread
from pipeline.devices.zerogpu_sizes import ON_ZEROGPU, GpuSize
from pipeline.errors import ModelUnavailable
from pipeline.events import Event, Phase
from pipeline.executors.executor import Executor
from pipeline.executors.inference_providers import InferenceProviders
from pipeline.executors.local import LocalExecutor
from pipeline.executors.zerogpu import ZeroGpu
from pipeline.request import GenerationRequest, Job
from pipeline.resolve import resolve
from pipeline.run import Cancel, Drawing, Emit, Preparation, Progress
from pipeline.weights.requirements import Requirement, requirements
from pipeline.weights.residency import Resident

DEVICES = {"cpu", "cuda", "mps"}
"""The kinds of device that a machine may have."""


@dataclass(frozen=True)
class EngineSpec:
    """All that an engine is made from, as plain data: it pickles, so that another process can make one too.

    models: the models.yaml. The rest: as of Engine.
    """

    models: Path
    wanted: Wanted = ANY
    threads: int | None = None
    gpu_size: GpuSize = "large"

    def engine(self) -> Engine:
        """An engine, nothing loaded yet.

        Raises:
            CatalogueError: models.yaml can't be used.
        """
        catalogue = read_catalogue(self.models)
        return Engine(catalogue, self.wanted, self.threads, self.gpu_size)


class Engine:
    """Draws jobs. Safe to use from any thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        wanted: Wanted = ANY,
        threads: int | None = None,
        gpu_size: GpuSize = "large",
    ) -> None:
        """
        Args:
            wanted: device and memory for models that aren't bound to the CPU.
            threads: of the CPU, for drawing there; None leaves it to torch.
            gpu_size: of the GPUs that ZeroGPU lends, where this is a Space of its.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.catalogue = catalogue
        self._wanted = wanted
        kinds = {spec.id: self._kind(spec) for spec in catalogue}

        def of(kind: str) -> list[ModelSpec]:
            return [spec for spec in catalogue if kinds[spec.id] == kind]

        self._local = {kind: LocalExecutor(of(kind), wanted) for kind in sorted({*kinds.values()} & DEVICES)}
        self._zerogpu: ZeroGpu | None = None
        self._executors: dict[str, Executor] = dict(self._local)
        if "inference" in kinds.values():
            self._executors["inference"] = InferenceProviders(of("inference"))
        if "zerogpu" in kinds.values():
            # What its workers draw with is loaded and kept here, and forked with all the rest.
            self._lent = LocalExecutor(of("zerogpu"), wanted)
            self._zerogpu = ZeroGpu(of("zerogpu"), self._lent.draw, gpu_size)
            self._executors["zerogpu"] = self._zerogpu

    # Which models there are.

    @property
    def default_model(self) -> str:
        """The first model of models.yaml that can run here (the first of all where none can)."""
        specs = list(self.catalogue)
        return next((spec.id for spec in specs if not self.reason(spec)), specs[0].id)

    def requirements(self, spec: ModelSpec) -> list[Requirement]:
        """What this model needs of this machine, met or not."""
        found = requirements(spec, self._wanted)
        if self._zerogpu is not None and self.line(spec.id) == "zerogpu":
            found += [
                Requirement("hardware", words, False) for words in [self._zerogpu.refusal(spec)] if words
            ]
        return found

    def reason(self, spec: ModelSpec) -> str:
        """Why this model can't run here; empty where it can."""
        return " ".join(f"{one.words} {one.url}".strip() for one in self.requirements(spec) if not one.met)

    def plan(self, spec: ModelSpec) -> Plan | None:
        """How this model is kept in memory here; None: no plan fits, or it is drawn elsewhere."""
        if spec.backend == "inference":
            return None
        return plan_for(spec, device_for(spec, self._wanted), self._wanted)

    def residency(self) -> list[Resident]:
        """Which networks are in memory now, and where."""
        return [resident for executor in self._local.values() for resident in executor.residency()]

    def ready_models(self) -> tuple[str, ...]:
        """Ids of the models that could begin to draw without loading. Cheap."""
        return tuple(id for one in self._executors.values() for id in one.capabilities().resident)

    def models(self) -> list[dict[str, Any]]:
        """Every model with its bounds, and whether it can run here. coming: nothing is made ready ahead by an
        engine itself; a queue says how far that is."""
        default = self.default_model
        found = []
        for spec in self.catalogue:
            reason, plan = self.reason(spec), self.plan(spec)
            found.append(
                {
                    "id": spec.id,
                    "name": spec.name,
                    "family": spec.family,
                    "license": spec.license.model_dump(),
                    "default": spec.id == default,
                    "available": not reason,
                    "reason": reason or None,
                    "plan": None if reason or plan is None else plan.name,
                    "coming": None,
                    "defaults": spec.defaults.model_dump(),
                    "limits": spec.limits.model_dump(mode="json"),
                }
            )
        return found

    # Drawing.

    def resolve(self, values: Mapping[str, Any]) -> Job:
        """The job that these parameters mean.

        Raises:
            InvalidRequest: names each parameter that is wrong, its value and its bound.
        """
        return resolve(GenerationRequest.parse(values), self.catalogue, self.default_model)

    def check(self, values: Mapping[str, Any]) -> Job:
        """As `resolve`, and the model can run here.

        Raises:
            InvalidRequest, ModelUnavailable.
        """
        job = self.resolve(values)
        spec = self.catalogue[job.model]
        if reason := self.reason(spec):
            raise ModelUnavailable(f"{spec.name} can't run here. {reason}")
        return job

    def checked(self, job: Job) -> Job:
        """The job as it can be drawn here, however it was made.

        Raises:
            InvalidRequest: it is out of its model's bounds.
            ModelUnavailable.
        """
        values = job.model_dump(exclude={"id", "warnings"}) | {"job": job.id}
        return self.check(values).model_copy(update={"warnings": job.warnings})

    def run(self, job: Job, emit: Emit, cancel: Cancel) -> Event:
        """Draws a job in the caller's thread, to its end, and returns its last event, which was emitted too.
        Jobs of one device wait for each other.

        Args:
            job: as of `check`, whose model can run here. emit, cancel: as of `Executor.run`.
        """
        return self._executors[self.line(job.model)].run(job, emit, cancel)

    def start(self, job: Job) -> Drawing:
        """As `run`, in a thread of its own; returns at once.

        Raises:
            InvalidRequest, ModelUnavailable: as of `checked`.
            Busy: no thread can be had.
        """
        drawing = Drawing(self.checked(job))
        # In the caller's context: the platform that lends a GPU finds there who asked for it.
        start_thread(
            f"drawing {job.short_id}",
            self.run,
            drawing.job,
            drawing.publish,
            drawing.cancel,
            in_context=True,
        )
        return drawing

    def load(self, model: str, progress: Progress | None = None) -> None:
        """Fetches and loads a model, so that its next drawing needn't; returns when it is there.

        Args:
            progress: is told how far it is, and ends it.

        Raises:
            UnknownModel; ModelUnavailable: it can't run here. As of `Executor.load`.
        """
        spec = self.catalogue[model]
        if reason := self.reason(spec):
            raise ModelUnavailable(reason)
        self._executors[self.line(model)].load(model, progress or Preparation(_untold, Cancel()))

    def fetched(self, model: str) -> bool:
        """Whether nothing of it needs to be fetched before it is drawn, as far as this process knows."""
        local = self._local.get(self.line(model))
        return local is None or local.fetched(self.catalogue[model])

    def fetch(self, model: str, progress: Progress) -> None:
        """Fetches what is missing of a model that a device of this machine draws; needs no device.

        Raises:
            Stopped, from `progress`; what `download.fetch` raises.
        """
        self._local[self.line(model)].fetch(self.catalogue[model], progress)

    def close(self, seconds: float) -> None:
        """Stops what this process draws and loads, and waits for it to come out of what it does: so many
        seconds at most. Nothing is to be started any more."""
        until = time.monotonic() + seconds
        for executor in self._executors.values():
            executor.close()
        for executor in self._executors.values():
            executor.join(until - time.monotonic())

    # Who draws.

    @property
    def executors(self) -> Mapping[str, Executor]:
        """The executors of this process, by the line of jobs that each draws."""
        return self._executors

    def line(self, model: str) -> str:
        """Which line this model's jobs wait in: of a kind of device (cpu, cuda, mps), of the Inference
        Providers (inference), or of ZeroGPU (zerogpu)."""
        return self._kind(self.catalogue[model])

    def device(self, model: str) -> str:
        """What draws this model, as "line: name": the device, the Inference Provider, or ZeroGPU's size."""
        spec, line = self.catalogue[model], self.line(model)
        if line == "inference":
            return f"{line}: {spec.provider}"
        if self._zerogpu is not None and line == "zerogpu":
            return f"{line}: {self._zerogpu.size}"
        return f"{line}: {device_for(spec, self._wanted).name}"

    def load_for_zerogpu(self) -> None:
        """On ZeroGPU, before the page is launched and in the main thread: loads what its workers draw with.
        Elsewhere there is nothing to do."""
        if self._zerogpu is not None:
            specs = [spec for spec in self.catalogue if self.line(spec.id) == "zerogpu"]
            runnable = [spec for spec in specs if not self.reason(spec)]
            progress = Preparation(_untold, Cancel())
            self._zerogpu.load_at_start(runnable, lambda spec: self._lent.load_here(spec, progress))

    def _kind(self, spec: ModelSpec) -> str:
        """What is bound to the CPU takes no GPU of ZeroGPU's, and nothing of a quota."""
        if spec.backend == "inference":
            return "inference"
        if ON_ZEROGPU and spec.device != "cpu":
            return "zerogpu"
        return device_for(spec, self._wanted).kind


def _untold(phase: Phase, done: int, total: int) -> None:
    """Nobody is told how far it is."""
