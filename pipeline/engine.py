"""The one core: `engine.start(job)` gives a drawing at once, and the drawing gives events.

The engine knows the models, keeps their weights, and gives each device to one drawing at a time; what an
Inference Provider draws is asked for by executors/inference_providers.py. The page and every API
are readers in front of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.catalog.catalogue import Catalogue, read_catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.devices.cuda_memory import gpu_memory
from pipeline.devices.hardware import ANY, Need, Wanted, accelerator, device_for, needs, plan_for
from pipeline.devices.line import Line
from pipeline.devices.memory_plans import Plan
from pipeline.devices.threads import start_thread
from pipeline.devices.zerogpu_sizes import ON_ZEROGPU, GpuSize
from pipeline.drawing import Drawing
from pipeline.errors import ModelUnavailable
from pipeline.executors.inference_providers import AT_ONCE, draw_remotely
from pipeline.executors.local import LocalExecutor
from pipeline.executors.zerogpu import AT_ONCE as WORKERS
from pipeline.executors.zerogpu import ZeroGpu
from pipeline.library_errors import explained
from pipeline.request import GenerationRequest, Job
from pipeline.resolve import resolve
from pipeline.sampling.sample import Waiting
from pipeline.weights.preload import Preload, Preloads
from pipeline.weights.residency import Resident

log = logging.getLogger("stepwise")

LOOK = 0.02
"""Seconds between two looks at whether a drawing that was stopped has ended."""


@dataclass(frozen=True)
class EngineSpec:
    """All that an engine is made from, as plain data: it pickles, so that another process can make one too.

    models: the models.yaml. The rest: as of Engine.
    """

    models: Path
    wanted: Wanted = ANY
    threads: int | None = None
    max_waiting: int = 20
    gpu_size: GpuSize = "large"

    def engine(self) -> Engine:
        """An engine, nothing loaded yet.

        Raises:
            CatalogueError: models.yaml can't be used.
        """
        catalogue = read_catalogue(self.models)
        return Engine(catalogue, self.wanted, self.threads, self.max_waiting, self.gpu_size)


class Engine:
    """Draws jobs. Safe to use from any thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        wanted: Wanted = ANY,
        threads: int | None = None,
        max_waiting: int = 20,
        gpu_size: GpuSize = "large",
    ) -> None:
        """
        Args:
            wanted: device and memory for models that aren't bound to the CPU.
            threads: of the CPU, for drawing there; None leaves it to torch.
            max_waiting: drawings that may wait in front of each device, and of the Inference Providers.
            gpu_size: of the GPUs that ZeroGPU lends, where this is a Space of its.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.catalogue = catalogue
        self._wanted = wanted
        self._local = LocalExecutor(wanted)
        self._lines = {kind: Line(max_waiting) for kind in ("cpu", "cuda", "mps")}
        self._lines["inference"] = Line(max_waiting, AT_ONCE)
        self._executors: dict[str, Callable[[Drawing, ModelSpec], None]] = {
            "local": self._local,
            "inference": draw_remotely,
        }
        self._zero = ZeroGpu(self._local, gpu_size) if ON_ZEROGPU else None
        if self._zero is not None:
            self._lines["zerogpu"] = Line(max_waiting, WORKERS)
            self._executors["zerogpu"] = self._zero.draw
        self._drawings: dict[str, Drawing] = {}
        self._lock = threading.Lock()
        self.preloads = Preloads()

    # Which models there are.

    @property
    def default_model(self) -> str:
        """The first model of models.yaml that can run here (the first of all where none can)."""
        specs = list(self.catalogue)
        return next((spec.id for spec in specs if not self.reason(spec)), specs[0].id)

    def needs(self, spec: ModelSpec) -> list[Need]:
        """What this model needs of this machine, met or not."""
        found = needs(spec, self._wanted)
        if self._zero is not None and self._executor(spec) == "zerogpu":
            found += [Need("hardware", words, False) for words in [self._zero.refusal(spec)] if words]
        return found

    def reason(self, spec: ModelSpec) -> str:
        """Why this model can't run here; empty where it can."""
        return " ".join(f"{need.words} {need.url}".strip() for need in self.needs(spec) if not need.met)

    def plan(self, spec: ModelSpec) -> Plan | None:
        """How this model is kept in memory here; None: no plan fits, or it is drawn elsewhere."""
        if spec.backend == "inference":
            return None
        return plan_for(spec, device_for(spec, self._wanted), self._wanted)

    def residency(self) -> list[Resident]:
        """Which networks are in memory now, and where."""
        return self._local.residency()

    def ready_models(self) -> tuple[str, ...]:
        """Ids of the models that could begin to draw on this machine's devices without loading. Cheap."""
        return tuple(
            spec.id for spec in self.catalogue if spec.backend == "local" and self._local.ready(spec)
        )

    def models(self) -> list[dict[str, Any]]:
        """Every model with its bounds, whether it can run here, and how far its preload is: the `/models`
        endpoint."""
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
                    "coming": self.preloads.of(spec.id),
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

    def start(self, job: Job) -> Drawing:
        """Puts a job in its device's line and returns at once. A job whose id is being drawn already is
        that drawing.

        Raises:
            InvalidRequest, ModelUnavailable: as of `checked`.
            Busy: no room, or no thread to be had.
        """
        job = self.checked(job)
        spec = self.catalogue[job.model]
        line = self._line(spec)
        with self._lock:
            known = self._drawings.get(job.id)
            if known is not None and not known.latest.last:  # else its thread is about to forget it
                return known
            drawing = Drawing(job, on_stop=line.wake)
            line.join(drawing)
            self._drawings[job.id] = drawing
            try:
                # In the caller's context: the platform that lends a GPU finds there who asked for it.
                start_thread(f"drawing {job.short_id}", self._run, drawing, spec, line, in_context=True)
            except BaseException:
                self._forget(drawing)
                line.leave(drawing)
                raise
        return drawing

    def line(self, model: str) -> str:
        """Which line this model's drawings wait in: of a kind of device (cpu, cuda, mps), of the Inference
        Providers (inference), or of ZeroGPU (zerogpu)."""
        spec = self.catalogue[model]
        executor = self._executor(spec)
        return device_for(spec, self._wanted).kind if executor == "local" else executor

    def width(self, line: str) -> int:
        """How many of a line's drawings are drawn at once."""
        return self._lines[line].width

    def device(self, model: str) -> str:
        """What draws this model, as "line: name": the device, the Inference Provider, or ZeroGPU's size."""
        spec, line = self.catalogue[model], self.line(model)
        if line == "inference":
            return f"{line}: {spec.provider}"
        if line == "zerogpu" and self._zero is not None:
            return f"{line}: {self._zero.size}"
        return f"{line}: {device_for(spec, self._wanted).name}"

    def gpu_memory(self) -> tuple[int, int] | None:
        """Bytes of the GPU that this process' tensors take, and all that it has; None: it draws on none of
        its own."""
        return None if ON_ZEROGPU or accelerator(self._wanted).kind != "cuda" else gpu_memory()

    def fetched(self, model: str) -> bool:
        """Whether nothing of it needs to be fetched before it is drawn, as far as this process knows."""
        spec = self.catalogue[model]
        return self._executor(spec) != "local" or self._local.fetched(spec)

    def fetch(self, model: str, waiting: Waiting) -> None:
        """Fetches what is missing of a model; needs no device.

        Raises:
            Stopped, from `waiting`; what `hub.fetch` raises.
        """
        self._local.fetch(self.catalogue[model], waiting)

    def find(self, job: str) -> Drawing | None:
        """The drawing with this id, while it is queued or drawn."""
        return self._drawings.get(job)

    def hold(self) -> None:
        """On ZeroGPU, before the page is launched and in the main thread: loads what its workers draw with.
        Elsewhere there is nothing to do."""
        if self._zero is not None:
            specs = [spec for spec in self.catalogue if self._executor(spec) == "zerogpu"]
            self._zero.hold([spec for spec in specs if not self.reason(spec)], self._hold)

    def preload(self, *models: str) -> threading.Thread:
        """Fetches and loads models that are drawn here, one after the other in the background, so that their
        first drawings needn't; `models` says how far it is.

        Raises:
            UnknownModel.
        """
        return self.preloads.start([self.catalogue[model] for model in models], self._make_ready)

    def close(self, seconds: float) -> None:
        """Stops what this process draws and loads, and waits for it to come out of what it does: so many
        seconds at most. Nothing is to be started any more."""
        until = time.monotonic() + seconds
        for drawing in list(self._drawings.values()):
            drawing.stop()
        self.preloads.closed = True
        for line in self._lines.values():
            line.wake()
        while self._drawings and time.monotonic() < until:
            time.sleep(LOOK)
        self.preloads.close(until - time.monotonic())

    def _hold(self, spec: ModelSpec) -> None:
        self._local.load(spec, Preload(self.preloads, spec))
        self.preloads.arrived(spec.id)

    def _make_ready(self, spec: ModelSpec, preload: Preload) -> None:
        if self._executor(spec) == "zerogpu":
            return  # held already, or its reason says why not
        if reason := self.reason(spec):
            raise ModelUnavailable(reason)
        with explained(spec.name, spec.license.url):
            self._local.fetch(spec, preload)  # before its turn, as of a drawing
            with preload.turn(self._line(spec)):
                self._local.load(spec, preload)

    def _run(self, drawing: Drawing, spec: ModelSpec, line: Line) -> None:
        try:
            with drawing.concluded(spec.name, spec.license.url):
                if self._executor(spec) == "local" and not self._local.fetched(spec):
                    with line.away(drawing):  # a download keeps no device from drawing
                        self._local.fetch(spec, drawing)
                with line.turn(drawing):
                    drawing.begin()
                    self._executors[self._executor(spec)](drawing, spec)
                self.preloads.arrived(spec.id)  # whatever became of its preload
        finally:
            with self._lock:
                self._forget(drawing)

    def _forget(self, drawing: Drawing) -> None:
        """Holding the lock. Its job may be drawn anew already."""
        if self._drawings.get(drawing.job.id) is drawing:
            del self._drawings[drawing.job.id]

    def _executor(self, spec: ModelSpec) -> str:
        """Who draws it: what is bound to the CPU takes no GPU of ZeroGPU's, and nothing of a quota."""
        lent = self._zero is not None and spec.backend == "local" and spec.device != "cpu"
        return "zerogpu" if lent else spec.backend

    def _line(self, spec: ModelSpec) -> Line:
        """Where its drawings wait: in front of the device, of the providers, or of ZeroGPU."""
        return self._lines[self.line(spec.id)]
