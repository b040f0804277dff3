"""Writes checkpoints of the true shapes with random weights, as the Hub's repositories lay them out, and the
models.yaml that points at them. What the variants share is written once and linked into each: the same
file, as the same content is on the Hub.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import crc32

import diffusers
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.embeddings import PatchEmbed
from ruamel.yaml import YAML

from bench.fullsize.reading import TOKENIZERS
from bench.fullsize.shapes import SHAPES, Part, Shape, Shapes
from bench.support.table import ROOT, table

AT_ONCE = 3
"""Parts written at once: a thread copies about 1 GB/s to a disk that may take more."""
for library in (diffusers, transformers):
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()

_NOTHING = ["feature_extractor", "image_encoder"]
"""Components that StableDiffusion3Pipeline knows and SD3.5 doesn't have."""


def make(folder: Path, size: str = "full", only: Iterable[str] = ()) -> None:
    """Writes the models into `folder`, and its models.yaml. What is there already stays.

    Args:
        size: full or tiny. only: ids of models.yaml; none: all.

    Raises:
        SystemExit: a part's parameter count is not what is published, or the disk is too small.
    """
    shapes = SHAPES[size]
    chosen = [shape for shape in shapes.models.values() if not only or shape.id in only]
    parts = _parts(shapes, chosen)
    print(_counts(parts), flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    missing = {path: part for path, part in parts.items() if not (folder / path).is_dir()}
    _check_disk(folder, missing.values())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        written = [
            pool.submit(_write, folder / path, part, shapes.std, crc32(path.encode()), device)
            for path, part in missing.items()
        ]
        for one in written:
            print(one.result(), flush=True)
    for shape in chosen:
        _lay_out(folder, shape)
    _write_catalogue(folder, shapes)
    total = sum(_bytes(part) for part in missing.values())
    print(f"{total / 1e9:.1f} GB in {time.monotonic() - began:.0f} s, in {folder}", flush=True)


def build(part: Part) -> torch.nn.Module:
    """The module on the meta device, in its stored dtype: shapes without numbers."""
    library, name = part.kind
    kind = getattr(importlib.import_module(library), name)
    with torch.device("meta"):
        if library == "diffusers":
            return kind(**part.config).to(getattr(torch, part.dtype))
        return kind(kind.config_class(**part.config)).to(getattr(torch, part.dtype))


def count(part: Part) -> tuple[int, int]:
    """Its parameters, and the numbers in buffers that are stored beside them."""
    module = build(part)
    parameters = {id(one): one.numel() for one in module.parameters()}
    own = {name for name, _ in module.named_buffers()}
    buffers = sum(value.numel() for name, value in module.state_dict().items() if name in own)
    return sum(parameters.values()), buffers


def _parts(shapes: Shapes, chosen: list[Shape]) -> dict[str, Part]:
    """Path below the folder → part, every part once, the longest to write first."""
    parts = {f"shared/{name}": shapes.shared[name] for shape in chosen for name in shape.shared.values()}
    parts |= {f"{shape.folder}/{name}": part for shape in chosen for name, part in shape.own.items()}
    return dict(sorted(parts.items(), key=lambda item: -_bytes(item[1])))


def _bytes(part: Part) -> int:
    return sum(count(part)) * getattr(torch, part.dtype).itemsize


def _counts(parts: dict[str, Part]) -> str:
    """The table of parameter counts; raises SystemExit where one is not what is published."""
    rows: list[tuple[str, ...]] = [("part", "class", "parameters", "published", "buffers", "GB")]
    wrong = []
    for path, part in parts.items():
        found, buffers = count(part)
        published = "" if part.parameters is None else f"{part.parameters / 1e9:.3f} B"
        gigabytes = f"{_bytes(part) / 1e9:.2f}"
        rows.append(
            (path, part.kind[1], f"{found / 1e9:.3f} B", published, f"{buffers / 1e9:.3f} B", gigabytes)
        )
        if part.parameters and abs(found / part.parameters - 1) > part.tolerance:
            wrong.append(f"{path} has {found / 1e9:.3f} B parameters, not {published}: mend shapes.py.")
    if wrong:
        raise SystemExit("\n".join(wrong))
    return table("Parts", rows)


def _check_disk(folder: Path, parts: Iterable[Part]) -> None:
    needed, free = sum(map(_bytes, parts)) / 1e9, shutil.disk_usage(folder).free / 1e9
    if needed > free:
        raise SystemExit(
            f"This takes {needed:.1f} GB and {folder} has {free:.1f} GB free: choose fewer models with "
            "--only, or another folder."
        )


def _write(folder: Path, part: Part, std: float, seed: int, device: str) -> str:
    """One part as its own library saves it, under its name only once it is whole."""
    began = time.monotonic()
    module = build(part).to_empty(device=device)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    _fill(module, std, torch.Generator(device).manual_seed(seed))
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    module.save_pretrained(unfinished, max_shard_size=part.shard)
    unfinished.rename(folder)
    size = sum(file.stat().st_size for file in folder.iterdir())
    del module
    if device == "cuda":
        torch.cuda.empty_cache()
    seconds = time.monotonic() - began
    return f"{folder.parent.name}/{folder.name}: {size / 1e9:.2f} GB, {size / 1e9 / seconds:.2f} GB/s"


@torch.no_grad()
def _fill(module: torch.nn.Module, std: float, generator: torch.Generator) -> None:
    """Matrices from a normal distribution, norms at one, biases at zero: activations stay of the order of
    one through any depth, because every block begins with a norm."""
    for name, parameter in module.named_parameters():
        if parameter.ndim >= 2:
            parameter.normal_(0, std, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    for one in module.modules():
        if isinstance(one, PatchEmbed) and one.pos_embed_max_size:
            with torch.device(generator.device):
                fresh = PatchEmbed(
                    height=one.height * one.patch_size,
                    width=one.width * one.patch_size,
                    patch_size=one.patch_size,
                    in_channels=1,
                    embed_dim=one.proj.out_channels,
                    pos_embed_max_size=one.pos_embed_max_size,
                )
            one.pos_embed.copy_(fresh.pos_embed)


def _lay_out(folder: Path, shape: Shape) -> None:
    """The pipeline's folder: links to what is shared, tokenizers, scheduler, model_index.json."""
    home = folder / shape.folder
    for component, name in shape.shared.items():
        _link(folder / "shared" / name, home / component)
    for component, (kind, size) in shape.tokenizers.items():
        if not (home / component).is_dir():
            TOKENIZERS[kind](size).save_pretrained(home / component)
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(home / "scheduler")
    index: dict[str, Any] = {"_class_name": shape.pipeline, "_diffusers_version": diffusers.__version__}
    if shape.shared:
        index |= {name: [None, None] for name in _NOTHING}
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    for component in sorted(path.name for path in home.iterdir() if path.is_dir()):
        config = home / component / "config.json"
        if config.exists():
            values = json.loads(config.read_text(encoding="utf-8"))
            index[component] = (
                ["diffusers", values["_class_name"]]
                if "_class_name" in values
                else ["transformers", values["architectures"][0]]
            )
        elif component in shape.tokenizers:
            text = (home / component / "tokenizer_config.json").read_text(encoding="utf-8")
            index[component] = ["transformers", json.loads(text)["tokenizer_class"]]
    (home / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if not (target / file.name).exists():
            os.link(file, target / file.name)


def _write_catalogue(folder: Path, shapes: Shapes) -> None:
    """The repository's own entries for the models that are there, each `source` the folder beside."""
    yaml = YAML(typ="safe")
    entries = []
    for entry in yaml.load(ROOT / "models.yaml"):
        shape = shapes.models.get(entry["id"])
        if shape is None or not (folder / shape.folder / "model_index.json").exists():
            continue
        entry.pop("revision", None)
        for key, value in shape.changes.items():
            entry[key] = entry[key] | value if value else value
        entries.append(entry | {"source": shape.folder})
    # JSON is YAML, and has no anchors that would tie the entries together.
    (folder / "models.yaml").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
