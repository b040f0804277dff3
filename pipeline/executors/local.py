"""Drawing on this machine: which weights, under which memory plan, and what happens when memory runs out.

The first executor behind `Engine.start`; inference_providers.py is another.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.hardware import GB, Device, Wanted, device_for, plan_for
from pipeline.devices.memory_plans import Plan, cheaper
from pipeline.drawing import Drawing
from pipeline.errors import ModelUnavailable, WeightsError
from pipeline.events import Phase
from pipeline.library_errors import is_out_of_memory
from pipeline.sampling.sample import Memory, Waiting, bring, draw
from pipeline.weights.download import fetch
from pipeline.weights.model import Weights, find
from pipeline.weights.patches import NO_PATCHES, Patches, patches_of
from pipeline.weights.profile import Profile, profile_of
from pipeline.weights.residency import Residency, Resident

log = logging.getLogger("stepwise")


class LocalExecutor:
    """Draws on this machine's devices. Used by one thread at a time per device: the one whose turn it is."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._memories: dict[Device, Memory] = {}
        self._folders: dict[str, Path] = {}
        self._weights: dict[tuple[str, str, Profile, Patches], Weights] = {}

    def __call__(self, drawing: Drawing, spec: ModelSpec) -> None:
        """Draws the job; where memory runs out, once more under the next cheaper plan, from the first image
        that isn't finished yet.

        Raises:
            Stopped, and what `draw` raises.
        """
        plan = self.plan(spec)
        device = self._device(spec)
        # A lent GPU (ZeroGPU) has no budget, and no time to read a model anew.
        fallback = cheaper(plan, spec.needs, device.host_memory / GB) if device.memory else None
        try:
            self._draw(drawing, spec, plan)
            return
        except Exception as error:
            if fallback is None or not is_out_of_memory(error):
                raise
            log.warning("%s: no memory left for job %s: %s", spec.name, drawing.job.short_id, error)
        # Here the exception is gone, and with it the tensors that its traceback held.
        self._memory(spec).residency.free()
        words = f"Memory ran out with {plan.words}; drawn again with {fallback.words}."
        drawing.update(step=0, eta=None, warnings=(*drawing.latest.warnings, words))
        self._draw(drawing, spec, fallback)

    def fetched(self, spec: ModelSpec) -> bool:
        """Whether this process has all files of the model, as far as it knows: `fetch` does nothing then."""
        return spec.local or spec.id in self._folders

    def fetch(self, spec: ModelSpec, waiting: Waiting) -> None:
        """Fetches what is missing of a model on this machine. Needs no device: any thread may call it.

        Raises:
            Stopped, from `waiting`; what `hub.fetch` raises.
        """

        def report(phase: Phase, done: int, total: int) -> None:
            waiting.check()
            waiting.update(phase=phase, done=done, total=total)

        if spec.id not in self._folders:
            self._folders[spec.id] = Path(spec.layout) if spec.local else fetch(spec, report)

    def load(self, spec: ModelSpec, waiting: Waiting) -> None:
        """Fetches and loads a model, so that its next drawing needn't.

        Raises:
            Stopped, from `waiting`; WeightsError, and what fetching and reading raise.
        """
        with self._anew_after_failure(spec):
            weights = self._find(spec, self.plan(spec), NO_PATCHES, waiting)
            residency = self._memory(spec).residency
            stages = (weights.encoders, weights.denoisers) if weights.plan.staged else (weights.networks,)
            for networks in stages:
                bring(waiting, weights, residency, networks)
            with weights.job_components() as own:
                own.pipeline({})  # imports its class and copies its tokenizers

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
        """What is in memory, on every device."""
        return [one for memory in self._memories.values() for one in memory.residency.contents()]

    def _draw(self, drawing: Drawing, spec: ModelSpec, plan: Plan) -> None:
        warnings = drawing.latest.warnings + ((plan.warning,) if plan.warning else ())
        device = self._device(spec)
        drawing.update(plan=plan.name, device=f"{device.kind}: {device.name}", warnings=warnings)
        memory = self._memory(spec)
        with self._anew_after_failure(spec):
            weights = self._find(spec, plan, patches_of(drawing.job), drawing)
            memory.drawing.do(draw, drawing, weights, memory)

    def _find(self, spec: ModelSpec, plan: Plan, patches: Patches, waiting: Waiting) -> Weights:
        self.fetch(spec, waiting)
        profile = profile_of(spec)
        key = (spec.id, plan.name, profile, patches)
        if key not in self._weights:
            folder, device = self._folders[spec.id], self._device(spec)
            self._weights[key] = find(spec, folder, device, plan, profile, patches)
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
        return self._memories.setdefault(device, Memory(Residency(device)))

    def _device(self, spec: ModelSpec) -> Device:
        return device_for(spec, self._wanted)
