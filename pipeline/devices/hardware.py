"""Which device, dtype and memory plan a model draws with.

The answers are facts about the machine, asked once; nothing here loads weights.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
import torch

from pipeline.catalog.spec import ModelSpec, PlanName
from pipeline.devices.cuda_memory import free_gpu_memory
from pipeline.devices.memory_plans import RESIDENT, Plan, fitting, plan_named
from pipeline.devices.zerogpu_sizes import ON_ZEROGPU
from pipeline.families import FAMILIES

GB = 10**9
_BF16_CAPABILITY = 8
"""CUDA compute capability (major) from which bf16 runs at full speed: Ampere."""
_SPARE = 0.9
"""The part of the free host memory that weights may take: requests, pictures and libraries need some too."""
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
_CACHED = ("inactive_file ", "total_inactive_file ")
"""Files just read, in memory.stat: they count as used, and the kernel takes them back at any time."""


@dataclass(frozen=True)
class Wanted:
    """What the owner chose for the models that aren't bound to the CPU.

    kind: the device, or auto: the best there is. gpu_memory, host_memory: GB (10⁹ bytes) that may be taken of
    each; None: what is free. plan: the memory plan of every model; None: each one's own.
    """

    kind: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    gpu_memory: float | None = None
    host_memory: float | None = None
    plan: PlanName | None = None


ANY = Wanted()
"""No wishes: the best device, all that is free of it, the fastest plan that fits."""


@dataclass(frozen=True)
class Device:
    """Where a model draws: a torch device, the dtype of its weights there, its name for people, and the bytes
    that weights and drawing may take there (0: not known, so not bounded) and in host memory beside it."""

    kind: str
    dtype: str
    memory: int
    name: str
    host_memory: int = 0

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.kind)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@cache
def accelerator(wanted: Wanted = ANY) -> Device:
    """The best device for models that are not bound to the CPU."""
    if ON_ZEROGPU:  # what lies on the GPU was chosen at the start (zerogpu_sizes.py), and stays
        return Device("cuda", "bfloat16", 0, "ZeroGPU")
    if wanted.kind in ("auto", "cuda") and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        dtype = "bfloat16" if properties.major >= _BF16_CAPABILITY else "float16"
        memory = _bytes(wanted.gpu_memory, free_gpu_memory())
        return Device("cuda", dtype, memory, properties.name, _bytes(wanted.host_memory, free_host_memory()))
    if wanted.kind in ("auto", "mps") and torch.backends.mps.is_available():
        # One memory for both: what leaves the GPU has nowhere else to go, and is dropped.
        memory = _bytes(wanted.gpu_memory, torch.mps.recommended_max_memory())
        return Device("mps", "float16", memory, "Apple GPU")
    return processor()


def _bytes(wanted: float | None, free: int) -> int:
    return free if wanted is None else round(wanted * GB)


def free_host_memory() -> int:
    """Bytes of host memory for weights that are not on the GPU: most of what is available, within the limit
    of the container (control groups version 2 or 1), which the machine's own total doesn't know."""
    available = psutil.virtual_memory().available
    for paths in _CGROUPS:
        try:
            limit, used, stat = (Path(path).read_text(encoding="ascii").strip() for path in paths)
        except OSError:
            continue
        if limit.isdigit():
            cached = sum(int(line.split()[1]) for line in stat.splitlines() if line.startswith(_CACHED))
            available = min(available, int(limit) - int(used) + cached)
    return max(0, int(available * _SPARE))


@cache
def processor() -> Device:
    """The CPU, in fp32: half precision is slower there, and less is rounded."""
    return Device("cpu", "float32", 0, platform.processor() or platform.machine() or "CPU")


def device_for(spec: ModelSpec, wanted: Wanted = ANY) -> Device:
    """Where this model draws: its own `device`, else the best there is."""
    return processor() if spec.device == "cpu" else accelerator(wanted)


def plan_for(spec: ModelSpec, device: Device, wanted: Wanted = ANY) -> Plan | None:
    """How this model is kept in memory there: as its entry or the owner says, else the fastest plan that
    fits; None: no plan does."""
    if device.kind != "cuda":  # what leaves another device's memory has nowhere else to go
        fits = not device.memory or RESIDENT.gpu_memory(spec.needs) <= device.memory / GB
        return RESIDENT if fits else None
    if name := spec.plan or wanted.plan:
        chosen = plan_named(name)
        # Without its one text encoder a model reads nothing: what comes next to that is meant.
        return (
            plan_named("quantized") if chosen.without_t5 and not FAMILIES[spec.family].t5_optional else chosen
        )
    if not spec.needs.known or not device.memory:
        return RESIDENT
    return next(fitting(spec.needs, device.memory / GB, device.host_memory / GB), None)
