"""How long a drawing holds a GPU of ZeroGPU: estimated from its family's table of costs before it starts, for
what it asks of its visitor's quota, and corrected by how long drawings of this process really took.

ZeroGPU refuses a drawing that asks for more than its visitor has left, and ends one that takes longer than it
asked for: hence never more than is needed, and a small margin.
"""

from __future__ import annotations

import math

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.zerogpu_sizes import GpuSize
from pipeline.families import FAMILIES
from pipeline.request import Job
from pipeline.weights.patches import patches_of
from pipeline.weights.profile import drawn_as, profile_of

MEGAPIXEL = 1024 * 1024
SLOWER: dict[GpuSize, float] = {"large": 4.0, "xlarge": 2.0}
"""How many times an H200's seconds each size takes: an H200 has 989 TFLOP/s in bf16 (data sheet, dense), a
whole RTX Pro 6000 Blackwell 500 (an eighth of its 4,000 with sparse FP4), `large` is half of one. Not
measured there."""

CONTEXT = 2.0
LOADING = 5 * 10**9
"""A new worker: seconds for its CUDA context and first kernels, and bytes a second at which it gets the
weights that `spaces` packed. Assumed, until this process has timed its own first worker; what others saw on
`large` fits: 4.1 s for 8.5 GB, 2.1 and 5.5 s for 9.2 GB, the wait for a GPU included (deployment records of
the project KLEOS, September and October 2026, spaces 0.51.3)."""
HOST = 0.3
"""Seconds a megapixel for writing the PNG and its preview: measured on one CPU core, 0.15, and doubled."""
MARGIN = 1.15
"""Asked for above the estimate."""
_CORRECTION = (0.3, 3.0)
"""Bounds of what measuring may make of the table: beyond them the drawing was held up by something else."""
_NEWEST = 0.5
"""Weight of the newest measurement against those before it."""


def drawing_seconds(job: Job, spec: ModelSpec, size: GpuSize) -> float:
    """Seconds from the prompt to the last picture, the worker being ready, as the table has it."""
    family = FAMILIES[spec.family]
    cost = family.cost(spec.id)
    pixels = job.width * job.height / MEGAPIXEL
    forwards = family.forwards(spec, family.guided(job))
    forward = cost.forward * ((1 - cost.attention) * pixels + cost.attention * pixels**2)
    step = max(cost.floor, SLOWER[size] * forwards * forward)
    picture = job.steps * step + (SLOWER[size] * cost.decode + HOST) * pixels
    return SLOWER[size] * cost.encode + job.images * picture


class GpuSeconds:
    """What drawings take in this process: the table, and what was measured since. Used by any thread: a lost
    update costs a measurement."""

    def __init__(self, size: GpuSize, held: int, factor: float = 1.0) -> None:
        """
        Args:
            held: bytes of the weights that each new worker gets.
            factor: by how much `spaces` multiplies what it is told before it asks: 1.5 on a Blackwell where
                the size isn't xlarge (spaces 0.51, zero/client.py).
        """
        self._size, self._factor = size, factor
        self._start = CONTEXT + held / LOADING
        self._corrections: dict[str, float] = {}
        self._started = False

    def needed(self, job: Job, spec: ModelSpec) -> float:
        """Seconds for this drawing in a new worker: whether it gets one nobody knows beforehand."""
        correction = self._corrections.get(_kind(job, spec), 1.0)
        return MARGIN * (self._start + correction * drawing_seconds(job, spec, self._size))

    def asked(self, job: Job, spec: ModelSpec) -> int:
        """What to tell `spaces` as `duration`, so that it asks for `needed`: it reads whole seconds only."""
        return max(1, math.ceil(self.needed(job, spec) / self._factor))

    def started(self, seconds: float) -> None:
        """A new worker was ready after so many seconds."""
        self._start = _mean(self._start, seconds) if self._started else seconds
        self._started = True

    def drawn(self, job: Job, spec: ModelSpec, seconds: float) -> None:
        """A finished drawing took so many seconds, its worker being ready."""
        low, high = _CORRECTION
        correction = min(high, max(low, seconds / drawing_seconds(job, spec, self._size)))
        kind = _kind(job, spec)
        known = self._corrections.get(kind)
        self._corrections[kind] = correction if known is None else _mean(known, correction)


def _kind(job: Job, spec: ModelSpec) -> str:
    return drawn_as(spec.id, profile_of(spec), patches_of(job))


def _mean(known: float, newest: float) -> float:
    return (1 - _NEWEST) * known + _NEWEST * newest
