"""Weights: fetched, read part by part onto their device, and kept.

One `Weights` per model, shared by all its jobs; what a job changes (scheduler, tokenizers, pipeline
object) is its own while it is drawn, see `Weights.pipeline`. Which model goes when memory is short is
decided here.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import json
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from pipeline.errors import WeightsError
from pipeline.families import FAMILIES
from pipeline.hardware import GB, Device
from pipeline.hub import Report, discard_damaged, fetch
from pipeline.preview import read_factors
from pipeline.spec import ModelSpec, PreviewFactors

# Our events carry the progress, and prompts.py says what was cut: the libraries' own bars and warnings
# would say both again, the second wrongly.
diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class Weights:
    """A model's components on its device. Modules are shared between jobs and never changed."""

    spec: ModelSpec
    device: Device
    components: dict[str, Any]
    factors: PreviewFactors | None
    _idle: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[Any]:
        """A diffusers pipeline for one job: shared modules, a scheduler and tokenizers that no other job has
        until the block ends (both keep state during a call, and tokenizers are not thread-safe).

        Tokenizers are lent again: every call sets all their state, and copying three of SD3.5's size takes
        tenths of a second (a BPE tokenizer of 49,000 tokens alone 0.13 to 0.18 s, measured on a CPU core)."""
        family = FAMILIES[self.spec.family]
        try:
            tokenizers = self._idle.pop()
        except IndexError:
            tokenizers = {reader.tokenizer: self.components[reader.tokenizer] for reader in family.readers}
            tokenizers = copy.deepcopy(tokenizers)
        scheduler = copy.deepcopy(self.components["scheduler"])
        pipe = getattr(diffusers, family.pipeline)(
            **{**self.components, **tokenizers, "scheduler": scheduler}
        )
        pipe.set_progress_bar_config(disable=True)
        try:
            yield pipe
        finally:
            self._idle.append(tokenizers)


class WeightsCache:
    """The models in memory, least recently used first. Used by one thread at a time per device: the one
    whose turn it is there."""

    def __init__(self) -> None:
        self._loaded: OrderedDict[str, Weights] = OrderedDict()

    def __contains__(self, model: str) -> bool:
        return model in self._loaded

    def get(self, spec: ModelSpec, device: Device, report: Report) -> Weights:
        """The model's weights, loaded if they aren't yet.

        Raises:
            WeightsError and what `errors.explained` maps; Stopped, from `report`. Nothing half-loaded stays.
        """
        if spec.id not in self._loaded:
            self._make_room(spec, device)
            self._loaded[spec.id] = load(spec, device, report)
        self._loaded.move_to_end(spec.id)
        return self._loaded[spec.id]

    def _make_room(self, spec: ModelSpec, device: Device) -> None:
        """Drops the least recently used models of this device until the new one fits its memory."""
        if not device.memory:
            return
        here = [weights for weights in self._loaded.values() if weights.device == device]
        while (
            here and sum(w.spec.needs.gpu_memory for w in here) + spec.needs.gpu_memory > device.memory / GB
        ):
            del self._loaded[here.pop(0).spec.id]
        gc.collect()
        if device.kind == "cuda":
            torch.cuda.empty_cache()


def load(spec: ModelSpec, device: Device, report: Report) -> Weights:
    """Reads a model's parts in diffusers' folder layout, one after the other, straight to `device`.

    Raises:
        WeightsError: the folder is not a pipeline, or of another family than models.yaml says.
    """
    folder = Path(spec.layout) if spec.local else fetch(spec, report)
    index = _read_index(spec, folder)
    names = [name for name, entry in index.items() if isinstance(entry, list) and entry[0]]
    components: dict[str, Any] = {name: None for name, entry in index.items() if isinstance(entry, list)}
    if missing := [name for name in names if not (folder / name).is_dir()]:
        raise WeightsError(f"{spec.name}: {', '.join(missing)} missing in {folder}: fetch or copy it again.")
    with _mended(spec, folder):
        for done, name in enumerate(names):
            report("loading", done, len(names))
            kind = _class(*index[name])
            if name == "transformer" and spec.base:
                components[name] = _load_file(kind, spec.source, folder, device)
            else:
                components[name] = _load_part(kind, folder / name, device)
    report("loading", len(names), len(names))
    factors, channels = read_factors(spec, folder), components["vae"].config.latent_channels
    if factors is not None and len(factors.factors) != channels:
        raise WeightsError(
            f"{spec.name}: {len(factors.factors)} rows of preview factors for {channels} latent channels: "
            "mend `preview` in models.yaml, or preview.json beside the weights."
        )
    return Weights(spec, device, components, factors)


@contextlib.contextmanager
def _mended(spec: ModelSpec, folder: Path) -> Iterator[None]:
    """Where the Hub's files can't be read as weights, those that were damaged since they were fetched are
    deleted, so that the next try mends them."""
    try:
        yield
    except (SafetensorError, OSError) as error:  # diffusers (0.42) makes the one into the other
        damaged = "" if spec.local else discard_damaged(folder)
        if not damaged:
            raise
        raise WeightsError(
            f"{spec.name}: {damaged} got damaged on this machine's disk and deleted. Try again: what is "
            "missing is fetched anew."
        ) from error


def _read_index(spec: ModelSpec, folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"{spec.name}: {spec.layout} has no model_index.json, so it isn't a diffusers pipeline; "
            "mend `source` in models.yaml."
        ) from None
    except ValueError as error:
        raise WeightsError(
            f"{spec.name}: model_index.json in {spec.layout} is damaged ({error}): fetch it again."
        ) from error
    expected = FAMILIES[spec.family].pipeline
    if index.get("_class_name") != expected:
        raise WeightsError(
            f"{spec.name}: {spec.layout} is a {index.get('_class_name')}, but family {spec.family} means "
            f"{expected}; mend `family` in models.yaml."
        )
    return index


def _class(library: str, name: str) -> Any:
    return getattr(importlib.import_module(library), name)


def _load_part(kind: Any, folder: Path, device: Device) -> Any:
    if not issubclass(kind, torch.nn.Module):
        return kind.from_pretrained(folder)
    module = kind.from_pretrained(folder, dtype=device.torch_dtype, use_safetensors=True)
    return module.to(device.torch_device).eval().requires_grad_(False)


def _load_file(kind: Any, file: str, layout: Path, device: Device) -> Any:
    """A transformer from one file, in its original or in diffusers' names, with the base's config."""
    module = kind.from_single_file(
        file, config=str(layout), subfolder="transformer", dtype=device.torch_dtype
    )
    return module.to(device.torch_device).eval().requires_grad_(False)
