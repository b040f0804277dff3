"""Drawing on a device of this machine, in one thread that lasts: which weights, under which memory plan, and
what happens when memory runs out.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.cuda_memory import gpu_memory
from pipeline.devices.hardware import GB, Device, Wanted, device_for, plan_for
from pipeline.devices.memory_plans import Plan, cheaper
from pipeline.devices.serial_thread import SerialThread
from pipeline.errors import ModelUnavailable, Stopped, WeightsError, WorkerDied
from pipeline.events import Event, Phase
from pipeline.executors.executor import Capabilities
from pipeline.executors.in_process import InProcess
from pipeline.executors.turns import Turns
from pipeline.library_errors import explained, is_device_lost, is_out_of_memory
from pipeline.request import Job
from pipeline.run import Cancel, Emit, Progress, Run
from pipeline.sampling.sample import Memory, bring, draw
from pipeline.weights.download import fetch
from pipeline.weights.model import Weights, find_weights
from pipeline.weights.patches import NO_PATCHES, Patches, patches_of
from pipeline.weights.profile import Profile, profile_of
from pipeline.weights.residency import Residency, Resident

log = logging.getLogger("stepwise")

LOST = "The GPU failed, and this server can't use it any more: restart the server."


class LocalExecutor(InProcess):
    """Draws the models of one kind of device ("cpu", "cuda", "mps"), one job at a time."""

    at_once = 1

    def __init__(self, specs: Sequence[ModelSpec], wanted: Wanted) -> None:
        """
        Args:
            specs: the models that are drawn on this kind of device. wanted: device and memory.
        """
        super().__init__(specs, Turns())
        self._wanted = wanted
        self._thread = SerialThread("draws")
        self._previews = SerialThread("previews")
        self._memories: dict[Device, Memory] = {}
        self._folders: dict[str, Path] = {}
        self._weights: dict[tuple[str, str, Profile, Patches], Weights] = {}
        self._lost = ""

    # The executor.

    def capabilities(self) -> Capabilities:
        resident = tuple(id for id, spec in self._specs.items() if self.ready(spec))
        return Capabilities(tuple(self._specs), resident, self._lost, self._lost)

    def gpu_memory(self) -> tuple[int, int] | None:
        on_gpu = any(self._device(spec).kind == "cuda" for spec in self._specs.values())
        return gpu_memory() if on_gpu else None

    def run(self, job: Job, emit: Emit, cancel: Cancel) -> Event:
        """As of Executor. A stop while a network is read ends the run at once; the next one begins when that
        network is there."""
        spec, run = self._specs[job.model], Run(job, emit, cancel)
        with self._turns.entered(cancel), run.concluded(spec.name, spec.license.url):
            run.raise_if_cancelled()
            self.fetch(spec, run)
            self._in_turn(run, lambda: self.draw(run, spec))
        return run.latest

    def load(self, model: str, progress: Progress) -> None:
        spec = self._specs[model]
        with self._turns.entered(progress.cancel), explained(spec.name, spec.license.url):
            self.plan(spec)
            progress.raise_if_cancelled()
            self.fetch(spec, progress)
            self._in_turn(progress, lambda: self.load_here(spec, progress))

    def join(self, seconds: float) -> None:
        self._thread.wait_idle(self._turns.join(seconds))

    def _in_turn(self, progress: Progress, work: Callable[[], None]) -> None:
        """Has this done in the device's thread, after what it was given before.

        Raises:
            Stopped: cancelled before its turn, or where it says that it may be abandoned. WorkerDied: this
                process has lost the device. And what it raises.
        """
        over = threading.Event()
        waiting = contextlib.ExitStack()

        def turn() -> None:
            waiting.close()
            progress.raise_if_cancelled()
            if self._lost:
                raise WorkerDied(self._lost)
            try:
                work()
            except Exception as error:
                if is_device_lost(error):  # noted here, for whoever waited may have gone
                    self._lost = LOST
                raise

        progress.on_abandon(over.set)
        waiting.enter_context(progress.abandonable())
        if self._thread.busy:
            progress.update(phase="queued")
        done = self._thread.submit(turn)
        done.add_done_callback(lambda _: over.set())
        over.wait()
        try:
            if not done.done():
                raise Stopped
            done.result()
        finally:
            del done  # its error's traceback has this frame: else they'd refer to each other, and to tensors

    # What it draws with.

    def fetched(self, spec: ModelSpec) -> bool:
        """Whether all files of the model are here, as far as this process knows."""
        return spec.local or spec.id in self._folders

    def fetch(self, spec: ModelSpec, progress: Progress) -> None:
        """Fetches what is missing of a model on this machine. Needs no device: any thread may call it.

        Raises:
            Stopped, from `progress`; what `download.fetch` raises.
        """

        def report(phase: Phase, done: int, total: int) -> None:
            progress.raise_if_cancelled()
            progress.update(phase=phase, done=done, total=total)

        if spec.id not in self._folders:
            self._folders[spec.id] = Path(spec.layout) if spec.local else fetch(spec, report)

    def load_here(self, spec: ModelSpec, progress: Progress) -> None:
        """As `load`, in the caller's thread, which has the device to itself."""
        with self._anew_after_failure(spec):
            weights = self._find(spec, self.plan(spec), NO_PATCHES, progress)
            residency = self._memory(spec).residency
            stages = (weights.encoders, weights.denoisers) if weights.plan.staged else (weights.networks,)
            for networks in stages:
                bring(progress, weights, residency, networks)
            with weights.job_components() as own:
                own.pipeline({})  # imports its class and copies its tokenizers

    def draw(self, run: Run, spec: ModelSpec) -> None:
        """Draws a job in the caller's thread, which has the device to itself; where memory runs out, once
        more under the next cheaper plan, from the first image that isn't finished yet.

        Raises:
            Stopped, and what `sample.draw` raises.
        """
        run.begin()
        plan = self.plan(spec)
        device = self._device(spec)
        # A lent GPU (ZeroGPU) has no budget, and no time to read a model anew.
        fallback = cheaper(plan, spec.needs, device.host_memory / GB) if device.memory else None
        try:
            self._draw(run, spec, plan)
            return
        except Exception as error:
            if fallback is None or not is_out_of_memory(error):
                raise
            log.warning("%s: no memory left for job %s: %s", spec.name, run.job.short_id, error)
        # Here the exception is gone, and with it the tensors that its traceback held.
        self._memory(spec).residency.free()
        words = f"Memory ran out with {plan.words}; drawn again with {fallback.words}."
        run.update(step=0, eta=None, warnings=(*run.latest.warnings, words))
        self._draw(run, spec, fallback)

    def plan(self, spec: ModelSpec) -> Plan:
        """How this model is kept in memory here.

        Raises:
            ModelUnavailable: no plan fits.
        """
        plan = plan_for(spec, self._device(spec), self._wanted)
        if plan is None:
            raise ModelUnavailable(f"{spec.name} doesn't fit this machine's memory.")
        return plan

    def ready(self, spec: ModelSpec) -> bool:
        """Whether the model's networks are on its device now, or, under a plan that never has all of them
        there at a time, as near as it keeps them: none would be read. Loads nothing; any thread may ask."""
        device = self._device(spec)
        plan, memory = plan_for(spec, device, self._wanted), self._memories.get(device)
        if plan is None or memory is None:
            return False
        weights = self._weights.get((spec.id, plan.name, profile_of(spec), NO_PATCHES))
        return weights is not None and memory.residency.ready(weights.networks, plan.staged, weights.streamed)

    def residency(self) -> list[Resident]:
        """What is in memory, on every device of this kind."""
        return [one for memory in self._memories.values() for one in memory.residency.contents()]

    def _draw(self, run: Run, spec: ModelSpec, plan: Plan) -> None:
        warnings = run.latest.warnings + ((plan.warning,) if plan.warning else ())
        device = self._device(spec)
        run.update(plan=plan.name, device=f"{device.kind}: {device.name}", warnings=warnings)
        with self._anew_after_failure(spec):
            draw(run, self._find(spec, plan, patches_of(run.job), run), self._memory(spec))

    def _find(self, spec: ModelSpec, plan: Plan, patches: Patches, progress: Progress) -> Weights:
        self.fetch(spec, progress)
        profile = profile_of(spec)
        key = (spec.id, plan.name, profile, patches)
        if key not in self._weights:
            folder, device = self._folders[spec.id], self._device(spec)
            self._weights[key] = find_weights(spec, folder, device, plan, profile, patches)
        return self._weights[key]

    @contextlib.contextmanager
    def _anew_after_failure(self, spec: ModelSpec) -> Iterator[None]:
        """What is known of a model's files is forgotten where they could not be read: the next try looks anew
        at what is there by then."""
        try:
            yield
        except Exception as error:
            if isinstance(error, WeightsError | OSError | SafetensorError):
                self._folders.pop(spec.id, None)
                for key in [key for key in self._weights if key[0] == spec.id]:
                    del self._weights[key]
            raise

    def _memory(self, spec: ModelSpec) -> Memory:
        device = self._device(spec)
        return self._memories.setdefault(device, Memory(Residency(device), self._previews))

    def _device(self, spec: ModelSpec) -> Device:
        return device_for(spec, self._wanted)
