"""A model's weights: fetched, looked through, and turned into pipelines.

What a job changes (scheduler, tokenizers, the pipeline object) is its own while it is drawn; the networks
are shared between jobs and models, and residency.py decides where they are.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.hardware import Device
from pipeline.devices.memory_plans import Plan
from pipeline.errors import WeightsError
from pipeline.families import FAMILIES, PreviewFactors, TextEncoder, preview_factors
from pipeline.weights.component import Component, Precision, Treatment, component, component_from_file
from pipeline.weights.download import discard_damaged
from pipeline.weights.layout import called, local_fault, parts, read_index
from pipeline.weights.patches import Patches
from pipeline.weights.profile import Profile

# Our events carry the progress, and sampling/tokens.py says what was cut: the libraries' own bars and
# warnings would say both again, the second wrongly.
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class Weights:
    """A model as it is drawn under one plan and profile on one device, with its patches; nothing of its
    networks is loaded yet.

    networks: its text encoders, transformer and VAE by their names in the pipeline. rest: tokenizers and
    scheduler, and None for what the pipeline may have and this model hasn't. factors: for its previews.
    """

    spec: ModelSpec
    device: Device
    plan: Plan
    profile: Profile
    patches: Patches
    folder: Path
    networks: dict[str, Component]
    rest: dict[str, Any]
    factors: PreviewFactors | None
    _idle: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def text_encoders(self) -> list[TextEncoder]:
        """The text encoders that this model has under this plan, the one that reads longest last."""
        return [one for one in FAMILIES[self.spec.family].text_encoders if one.network in self.networks]

    @property
    def encoders(self) -> dict[str, Component]:
        """The text encoders' networks."""
        return {one.network: self.networks[one.network] for one in self.text_encoders}

    @property
    def denoisers(self) -> dict[str, Component]:
        """The networks that make a picture: transformer and VAE."""
        return {name: network for name, network in self.networks.items() if name not in self.encoders}

    @property
    def streamed(self) -> tuple[str, ...]:
        """Names of the networks whose blocks visit the device one by one under this plan."""
        large = FAMILIES[self.spec.family].largest_encoder
        return ("transformer", large) if self.plan.streamed else ()

    @contextlib.contextmanager
    def job_components(self) -> Iterator[JobComponents]:
        """What one job has of its own until the block ends.

        Tokenizers are lent again: every call sets all their state, and copying three of SD3.5's size takes
        tenths of a second (a BPE tokenizer of 49,000 tokens alone 0.13 to 0.18 s, measured on a CPU core)."""
        try:
            tokenizers = self._idle.pop()
        except IndexError:
            names = [one.tokenizer for one in FAMILIES[self.spec.family].text_encoders]
            tokenizers = copy.deepcopy({name: self.rest[name] for name in names})
        try:
            yield JobComponents(self, tokenizers, copy.deepcopy(self.rest["scheduler"]))
        finally:
            self._idle.append(tokenizers)


@dataclass(frozen=True)
class JobComponents:
    """A scheduler and tokenizers that no other job has meanwhile: both keep state during a call, and
    tokenizers are not thread-safe."""

    weights: Weights
    tokenizers: dict[str, Any]
    scheduler: Any

    def pipeline(self, networks: dict[str, torch.nn.Module]) -> Any:
        """A diffusers pipeline of these networks, by their names, without the others; it is cheap."""
        weights = self.weights
        absent = dict.fromkeys(weights.networks)
        components = {**weights.rest, **absent, **self.tokenizers, **networks, "scheduler": self.scheduler}
        pipe = getattr(diffusers, FAMILIES[weights.spec.family].pipeline)(**components)
        pipe.set_progress_bar_config(disable=True)
        return pipe


def find_weights(
    spec: ModelSpec, folder: Path, device: Device, plan: Plan, profile: Profile, patches: Patches
) -> Weights:
    """Looks what a model's parts are; networks are read later.

    Args:
        folder: the pipeline in diffusers' layout that it is, or is based on.

    Raises:
        WeightsError: the folder is not a pipeline, or of another family than models.yaml says.
    """
    index = read_index(spec, folder)
    names = parts(index)
    rest: dict[str, Any] = {name: None for name, entry in index.items() if isinstance(entry, list)}
    networks: dict[str, Component] = {}
    large = FAMILIES[spec.family].largest_encoder
    with mended(spec, folder):
        for name in names:
            kind = _class(*index[name])
            if not issubclass(kind, torch.nn.Module):
                rest[name] = kind.from_pretrained(folder / name)
                continue
            if name == large and plan.without_t5:
                rest[name] = None
                continue
            treatment = Treatment(
                device.torch_dtype, _precision(plan, name, large), profile, patches.of(name)
            )
            if name == "transformer" and spec.base:
                networks[name] = component_from_file(kind, Path(spec.source), folder, called(spec), treatment)
            else:
                networks[name] = component(kind, folder / name, treatment)
        channels = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))["latent_channels"]
    factors = read_factors(spec, folder)
    if factors is not None and len(factors.factors) != channels:
        raise WeightsError(
            f"{spec.name}: {len(factors.factors)} rows of preview factors for {channels} latent channels: "
            "mend `preview` in models.yaml, or preview.json beside the weights."
        )
    return Weights(spec, device, plan, profile, patches, folder, networks, rest, factors)


def read_factors(spec: ModelSpec, folder: Path) -> PreviewFactors | None:
    """A model's preview factors: from its entry, else from preview.json beside its weights, else None."""
    if isinstance(spec.preview, str):
        return preview_factors()[spec.preview]
    if spec.preview is not None:
        return spec.preview
    beside = folder / "preview.json"
    return PreviewFactors(**json.loads(beside.read_text(encoding="utf-8"))) if beside.exists() else None


def _precision(plan: Plan, name: str, large: str) -> Precision:
    if plan.quantized and name == "transformer":
        return "4-bit"
    return "8-bit" if plan.quantized and name == large else "16-bit"


@contextlib.contextmanager
def mended(spec: ModelSpec, folder: Path) -> Iterator[None]:
    """Where files can't be read as weights, the Hub's that were damaged since they were fetched are deleted,
    so that the next try mends them; of the owner's own it is said what is wrong with which."""
    try:
        yield
    except (SafetensorError, OSError) as error:  # diffusers (0.42) makes the one into the other
        if fault := local_fault(spec):
            raise WeightsError(f"{spec.name}: {fault}") from error
        damaged = "" if spec.local else discard_damaged(folder)
        if not damaged:
            raise
        raise WeightsError(
            f"{spec.name}: {damaged} got damaged on this machine's disk and deleted. Try again: what is "
            "missing is fetched anew."
        ) from error


def _class(library: str, name: str) -> Any:
    return getattr(importlib.import_module(library), name)
