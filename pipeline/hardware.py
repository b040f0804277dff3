"""Which device and dtype a model draws with, and whether it can run on this machine at all.

The answers are facts about the machine, asked once; nothing here loads weights.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from huggingface_hub import constants, get_token, try_to_load_from_cache

from pipeline.gpu_sizes import ON_ZEROGPU
from pipeline.spec import ModelSpec

GB = 10**9
_BF16_CAPABILITY = 8
"""CUDA compute capability (major) from which bf16 runs at full speed: Ampere."""
_TOKENS = "https://huggingface.co/settings/tokens"
_INFERENCE_TOKENS = f"{_TOKENS}/new?ownUserPermissions=inference.serverless.write&tokenType=fineGrained"
_ZEROGPU = "https://huggingface.co/docs/hub/spaces-zerogpu#usage-tiers"
_HUGGING_FACE_TOKEN = re.compile(r"hf_[\w.=-]+", re.ASCII)


@dataclass(frozen=True)
class Device:
    """Where a model draws: a torch device, the dtype of its weights there, its memory in bytes (0: not
    known), and its name for people."""

    kind: str
    dtype: str
    memory: int
    name: str

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.kind)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Need:
    """One thing that a model needs: what (hardware, token, licence, disk or network), in which words, whether
    this machine has it, and where to get it."""

    what: str
    words: str
    met: bool
    url: str = ""


@cache
def accelerator(wanted: str = "auto") -> Device:
    """The best device for models that are not bound to the CPU.

    Args:
        wanted: auto, cuda, mps or cpu (the setting STEPWISE_DEVICE).
    """
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        dtype = "bfloat16" if properties.major >= _BF16_CAPABILITY else "float16"
        return Device("cuda", dtype, properties.total_memory, properties.name)
    if wanted in ("auto", "mps") and torch.backends.mps.is_available():
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Device("mps", "float16", memory, "Apple GPU")
    return processor()


@cache
def processor() -> Device:
    """The CPU, in fp32: half precision is slower there, and less is rounded."""
    return Device("cpu", "float32", 0, platform.processor() or platform.machine() or "CPU")


def device_for(spec: ModelSpec, wanted: str = "auto") -> Device:
    """Where this model draws: its own `device`, else the best there is."""
    return processor() if spec.device == "cpu" else accelerator(wanted)


def needs(spec: ModelSpec, wanted: str = "auto") -> list[Need]:
    """Everything this model needs of a machine, met or not: hardware, token, licence, disk."""
    if spec.backend == "inference":
        return _inference(spec)
    found = [_hardware(spec, device_for(spec, wanted))]
    if not spec.local:
        found += [*_license(spec), _disk(spec)]
    return found


def _hardware(spec: ModelSpec, device: Device) -> Need:
    gpu = spec.needs.gpu_memory
    if not gpu:
        return Need("hardware", "Runs on the CPU.", True)
    url = "https://huggingface.co/docs/hub/spaces-gpus"
    words = f"Needs a GPU with {gpu:g} GB of memory"
    if ON_ZEROGPU:
        # Which models it holds at a time is decided at the start: see zerogpu.py.
        words = "ZeroGPU lends a GPU for each drawing: its seconds come from the visitor's daily quota."
        return Need("hardware", words, True, _ZEROGPU)
    if device.kind == "cpu":
        return Need("hardware", f"{words}; this machine has none.", False, url)
    have = device.memory / GB
    return Need("hardware", f"{words}; {device.name} has {have:.0f} GB.", have >= gpu, url)


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
        Need("licence", accept, has_token, license.url),
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
    free = shutil.disk_usage(folder).free / GB
    words = f"Downloads {spec.needs.disk:g} GB on first use; {free:.0f} GB are free."
    met = free >= spec.needs.disk or _downloaded(spec)
    return Need("disk", words, met, "" if met else "https://huggingface.co/docs/hub/spaces-storage")


def _downloaded(spec: ModelSpec) -> bool:
    return isinstance(
        try_to_load_from_cache(spec.layout, "model_index.json", revision=spec.revision or "main"), str
    )
