"""Drawing on this machine: which weights, under which memory plan, and what happens when memory runs out.

The first executor behind `Engine.start`; remote.py is another.
"""

from __future__ import annotations

import logging

from pipeline.draw import Memory, Waiting, bring, draw
from pipeline.drawing import Drawing
from pipeline.errors import ModelUnavailable, is_out_of_memory
from pipeline.events import Phase
from pipeline.hardware import GB, Device, Wanted, device_for, plan_for
from pipeline.plans import Plan, cheaper
from pipeline.residency import Residency, Resident
from pipeline.spec import ModelSpec
from pipeline.weights import Weights, find

log = logging.getLogger("stepwise")


class LocalExecutor:
    """Draws on this machine's devices. Used by one thread at a time per device: the one whose turn it is."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._memories: dict[Device, Memory] = {}
        self._weights: dict[tuple[str, str], Weights] = {}

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
            log.warning("%s: no memory left for job %s: %s", spec.name, drawing.job.id, error)
        # Here the exception is gone, and with it the tensors that its traceback held.
        self._memory(spec).residency.free()
        words = f"Memory ran out with {plan.words}; drawn again with {fallback.words}."
        drawing.update(step=0, eta=None, warnings=(*drawing.latest.warnings, words))
        self._draw(drawing, spec, fallback)

    def load(self, spec: ModelSpec, waiting: Waiting) -> None:
        """Fetches and loads a model, so that its next drawing needn't.

        Raises:
            Stopped, from `waiting`; WeightsError, and what fetching and reading raise.
        """
        weights = self._find(spec, self.plan(spec), waiting)
        residency = self._memory(spec).residency
        for networks in (weights.encoders, weights.painters) if weights.plan.staged else (weights.networks,):
            bring(waiting, weights, residency, networks)
        with weights.lent() as own:
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

    def residency(self) -> list[Resident]:
        """What is in memory, on every device."""
        return [one for memory in self._memories.values() for one in memory.residency.contents()]

    def _draw(self, drawing: Drawing, spec: ModelSpec, plan: Plan) -> None:
        warnings = drawing.latest.warnings + ((plan.warning,) if plan.warning else ())
        drawing.update(plan=plan.name, warnings=warnings)
        draw(drawing, self._find(spec, plan, drawing), self._memory(spec))

    def _find(self, spec: ModelSpec, plan: Plan, waiting: Waiting) -> Weights:
        def report(phase: Phase, done: int, total: int) -> None:
            waiting.check()
            waiting.update(phase=phase, done=done, total=total)

        key = (spec.id, plan.name)
        if key not in self._weights:
            self._weights[key] = find(spec, self._device(spec), plan, report)
        return self._weights[key]

    def _memory(self, spec: ModelSpec) -> Memory:
        device = self._device(spec)
        return self._memories.setdefault(device, Memory(Residency(device)))

    def _device(self, spec: ModelSpec) -> Device:
        return device_for(spec, self._wanted)
