"""What a model needs of this machine, each thing met or not: hardware, a token, a licence, disk, and files of
the owner's that are what they should be.
"""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, get_token, try_to_load_from_cache

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.hardware import ANY, GB, Device, Wanted, device_for, plan_for
from pipeline.devices.memory_plans import RESIDENT, least
from pipeline.devices.zerogpu_sizes import ON_ZEROGPU
from pipeline.weights.layout import local_fault

_TOKENS = "https://huggingface.co/settings/tokens"
_INFERENCE_TOKENS = f"{_TOKENS}/new?ownUserPermissions=inference.serverless.write&tokenType=fineGrained"
_ZEROGPU = "https://huggingface.co/docs/hub/spaces-zerogpu#usage-tiers"
_HUGGING_FACE_TOKEN = re.compile(r"hf_[\w.=-]+", re.ASCII)


@dataclass(frozen=True)
class Requirement:
    """One thing that a model needs: what (hardware, token, licence, disk, network or weights), in which
    words, whether this machine has it (known: or may have it, which only the Hub can tell), and where to get
    it."""

    what: str
    words: str
    met: bool
    url: str = ""
    known: bool = True


def requirements(spec: ModelSpec, wanted: Wanted = ANY) -> list[Requirement]:
    """Everything this model needs of a machine, met or not: hardware, token, licence, disk, and files of the
    owner's that are what they should be."""
    if spec.backend == "inference":
        return _inference(spec)
    found = [_hardware(spec, device_for(spec, wanted), wanted)]
    if not spec.local:
        found += [*_license(spec), _disk(spec)]
    if fault := local_fault(spec):
        found.append(Requirement("weights", fault, False))
    return found


def _hardware(spec: ModelSpec, device: Device, wanted: Wanted) -> Requirement:
    if not spec.needs.known:
        return Requirement("hardware", "Runs on the CPU.", True)
    url = "https://huggingface.co/docs/hub/spaces-gpus"
    if ON_ZEROGPU:
        # Which models it holds at a time is decided at the start: see executors/zerogpu.py.
        words = "ZeroGPU lends a GPU for each drawing: its seconds come from the visitor's daily quota."
        return Requirement("hardware", words, True, _ZEROGPU)
    if device.kind == "cpu" and wanted.kind == "cpu":
        words = "Needs a GPU; STEPWISE_DEVICE=cpu keeps to the CPU."
        return Requirement("hardware", words, False)
    if device.kind == "cpu":
        best, lowest = RESIDENT.gpu_memory(spec.needs), least(spec.needs, float("inf"))
        words = f"Needs a GPU: {best:.0f} GB of its memory are best, {lowest:.0f} GB the least"
        return Requirement("hardware", f"{words}; this machine has none.", False, url)
    have = device.memory / GB
    plan = plan_for(spec, device, wanted)
    if plan is not None:
        return Requirement("hardware", f"{device.name}, {have:.0f} GB: {plan.words}.", True)
    if device.kind != "cuda":
        words = f"Needs {RESIDENT.gpu_memory(spec.needs):.0f} GB of GPU memory"
        return Requirement("hardware", f"{words}; {device.name} has {have:.0f} GB.", False, url)
    words = f"Needs {least(spec.needs, device.host_memory / GB):.0f} GB of GPU memory"
    if least(spec.needs, float("inf")) < least(spec.needs, device.host_memory / GB):
        words += f", or {spec.needs.weights:.0f} GB of free host memory beside less of it"
    return Requirement("hardware", f"{words}; {device.name} has {have:.0f} GB.", False, url)


def _license(spec: ModelSpec) -> list[Requirement]:
    license = spec.license
    if not license.gated:
        return [Requirement("licence", f"{license.name} licence.", True, license.url)]
    has_token = get_token() is not None
    token = "HF_TOKEN is set." if has_token else "Needs HF_TOKEN, a token of yours (scope: read)."
    # Whether the account accepted the licence only the Hub knows: it says so when weights are fetched.
    accept = f"The token’s account must have accepted the {license.name} licence."
    return [
        Requirement("token", token, has_token, "" if has_token else _TOKENS),
        Requirement("licence", accept, has_token, license.url, known=not has_token or _downloaded(spec)),
    ]


def _inference(spec: ModelSpec) -> list[Requirement]:
    """What a model needs that an Inference Provider draws: a token, and to be allowed out."""
    found = [Requirement("hardware", f"Drawn by {spec.drawn_by}: no GPU and no disk are needed here.", True)]
    token = get_token()
    if token is None:
        words = "Needs HF_TOKEN, a token of yours that may call Inference Providers; its account pays."
        found.append(Requirement("token", words, False, _INFERENCE_TOKENS))
    elif not _HUGGING_FACE_TOKEN.fullmatch(token):
        # huggingface_hub (2.4) would take it for the provider's own key, and send it there.
        words = "HF_TOKEN is no token of Hugging Face (hf_, then letters and digits); its account would pay."
        found.append(Requirement("token", words, False, _INFERENCE_TOKENS))
    else:
        found.append(Requirement("token", "HF_TOKEN is set; its account pays for every picture.", True))
    if constants.is_offline_mode():
        words = "HF_HUB_OFFLINE is set, which forbids to ask a provider: unset it and start again."
        found.append(Requirement("network", words, False))
    return found


def _disk(spec: ModelSpec) -> Requirement:
    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = math.floor(shutil.disk_usage(folder).free / GB * 10) / 10
    if _downloaded(spec):
        return Requirement("disk", f"Downloaded, in whole or in part; {free:g} GB are free.", True)
    words = f"Downloads {spec.needs.disk:g} GB on first use; {free:g} GB are free."
    if free >= spec.needs.disk:
        return Requirement("disk", words, True)
    words += " Set HF_HOME to a folder on a larger disk."
    return Requirement("disk", words, False, "https://huggingface.co/docs/hub/spaces-storage")


def _downloaded(spec: ModelSpec) -> bool:
    return isinstance(
        try_to_load_from_cache(spec.layout, "model_index.json", revision=spec.revision or "main"), str
    )
