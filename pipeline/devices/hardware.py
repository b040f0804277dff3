"""Which device, dtype and memory plan a model draws with, and whether it can run on this machine at all.

The answers are facts about the machine, asked once; nothing here loads weights.
"""

from __future__ import annotations

import math
import platform
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
import torch
from huggingface_hub import constants, get_token, try_to_load_from_cache

from pipeline.catalog.layout import local_fault
from pipeline.catalog.spec import ModelSpec, PlanName
from pipeline.devices.cuda_memory import free_gpu_memory
from pipeline.devices.memory_plans import RESIDENT, Plan, fitting, least, plan_named
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
_TOKENS = "https://huggingface.co/settings/tokens"
_INFERENCE_TOKENS = f"{_TOKENS}/new?ownUserPermissions=inference.serverless.write&tokenType=fineGrained"
_ZEROGPU = "https://huggingface.co/docs/hub/spaces-zerogpu#usage-tiers"
_HUGGING_FACE_TOKEN = re.compile(r"hf_[\w.=-]+", re.ASCII)


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


@dataclass(frozen=True)
class Need:
    """One thing that a model needs: what (hardware, token, licence, disk, network or weights), in which
    words, whether this machine has it (known: or may have it, which only the Hub can tell), and where to get
    it."""

    what: str
    words: str
    met: bool
    url: str = ""
    known: bool = True


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


def needs(spec: ModelSpec, wanted: Wanted = ANY) -> list[Need]:
    """Everything this model needs of a machine, met or not: hardware, token, licence, disk, and files of the
    owner's that are what they should be."""
    if spec.backend == "inference":
        return _inference(spec)
    found = [_hardware(spec, device_for(spec, wanted), wanted)]
    if not spec.local:
        found += [*_license(spec), _disk(spec)]
    if fault := local_fault(spec):
        found.append(Need("weights", fault, False))
    return found


def _hardware(spec: ModelSpec, device: Device, wanted: Wanted) -> Need:
    if not spec.needs.known:
        return Need("hardware", "Runs on the CPU.", True)
    url = "https://huggingface.co/docs/hub/spaces-gpus"
    if ON_ZEROGPU:
        # Which models it holds at a time is decided at the start: see executors/zerogpu.py.
        words = "ZeroGPU lends a GPU for each drawing: its seconds come from the visitor's daily quota."
        return Need("hardware", words, True, _ZEROGPU)
    if device.kind == "cpu" and wanted.kind == "cpu":
        words = "Needs a GPU; STEPWISE_DEVICE=cpu keeps to the CPU."
        return Need("hardware", words, False)
    if device.kind == "cpu":
        best, lowest = RESIDENT.gpu_memory(spec.needs), least(spec.needs, float("inf"))
        words = f"Needs a GPU: {best:.0f} GB of its memory are best, {lowest:.0f} GB the least"
        return Need("hardware", f"{words}; this machine has none.", False, url)
    have = device.memory / GB
    plan = plan_for(spec, device, wanted)
    if plan is not None:
        return Need("hardware", f"{device.name}, {have:.0f} GB: {plan.words}.", True)
    if device.kind != "cuda":
        words = f"Needs {RESIDENT.gpu_memory(spec.needs):.0f} GB of GPU memory"
        return Need("hardware", f"{words}; {device.name} has {have:.0f} GB.", False, url)
    words = f"Needs {least(spec.needs, device.host_memory / GB):.0f} GB of GPU memory"
    if least(spec.needs, float("inf")) < least(spec.needs, device.host_memory / GB):
        words += f", or {spec.needs.weights:.0f} GB of free host memory beside less of it"
    return Need("hardware", f"{words}; {device.name} has {have:.0f} GB.", False, url)


def _license(spec: ModelSpec) -> list[Need]:
    license = spec.license
    if not license.gated:
        return [Need("licence", f"{license.name} licence.", True, license.url)]
    has_token = get_token() is not None
    token = "HF_TOKEN is set." if has_token else "Needs HF_TOKEN, a token of yours (scope: read)."
    # Whether the account accepted the licence only the Hub knows: it says so when weights are fetched.
    accept = f"The token’s account must have accepted the {license.name} licence."
    return [
        Need("token", token, has_token, "" if has_token else _TOKENS),
        Need("licence", accept, has_token, license.url, known=not has_token or _downloaded(spec)),
    ]


def _inference(spec: ModelSpec) -> list[Need]:
    """What a model needs that an Inference Provider draws: a token, and to be allowed out."""
    found = [Need("hardware", f"Drawn by {spec.drawn_by}: no GPU and no disk are needed here.", True)]
    token = get_token()
    if token is None:
        words = "Needs HF_TOKEN, a token of yours that may call Inference Providers; its account pays."
        found.append(Need("token", words, False, _INFERENCE_TOKENS))
    elif not _HUGGING_FACE_TOKEN.fullmatch(token):
        # huggingface_hub (2.4) would take it for the provider's own key, and send it there.
        words = "HF_TOKEN is no token of Hugging Face (hf_, then letters and digits); its account would pay."
        found.append(Need("token", words, False, _INFERENCE_TOKENS))
    else:
        found.append(Need("token", "HF_TOKEN is set; its account pays for every picture.", True))
    if constants.is_offline_mode():
        words = "HF_HUB_OFFLINE is set, which forbids to ask a provider: unset it and start again."
        found.append(Need("network", words, False))
    return found


def _disk(spec: ModelSpec) -> Need:
    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = math.floor(shutil.disk_usage(folder).free / GB * 10) / 10
    if _downloaded(spec):
        return Need("disk", f"Downloaded, in whole or in part; {free:g} GB are free.", True)
    words = f"Downloads {spec.needs.disk:g} GB on first use; {free:g} GB are free."
    if free >= spec.needs.disk:
        return Need("disk", words, True)
    words += " Set HF_HOME to a folder on a larger disk."
    return Need("disk", words, False, "https://huggingface.co/docs/hub/spaces-storage")


def _downloaded(spec: ModelSpec) -> bool:
    return isinstance(
        try_to_load_from_cache(spec.layout, "model_index.json", revision=spec.revision or "main"), str
    )
