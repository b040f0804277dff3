"""One neural network of a pipeline: which files it is, known by their content, and how they are read.

Two models whose text encoder is the same file have the same `Component`, so residency.py loads it once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from safetensors import safe_open

from pipeline.gpu_sizes import ON_ZEROGPU
from pipeline.plans import EIGHT_BITS, FOUR_BITS

Precision = Literal["16-bit", "8-bit", "4-bit"]
"""How a component's matrices are kept; 16-bit stands for the device's own dtype, fp32 on a CPU."""

_SHARE = {"16-bit": 1.0, "8-bit": EIGHT_BITS, "4-bit": FOUR_BITS}
"""Of the 16-bit size."""
_SHA256 = re.compile("[0-9a-f]{64}")
_FP16_VARIANT = re.compile(r"\.fp16(-\d+-of-\d+)?\.safetensors$")
_PASSING = ("_name_or_path", "transformers_version", "_diffusers_version", "torch_dtype", "dtype")
"""Keys of a config that say where it came from, or what `dtype` overrides: not what the network is."""


@dataclass(frozen=True)
class Component:
    """A network that can be read, and be kept for every model that has the same.

    key: what it is: class, precision, config and content of its files. name: for people. size: bytes of its
    tensors once read. movable: whether its tensors may be moved to host memory and back as they are. read:
    (device) → the module there, in evaluation mode.
    """

    key: tuple[str, ...]
    name: str = field(compare=False)
    size: int = field(compare=False)
    movable: bool = field(compare=False)
    read: Callable[[torch.device], torch.nn.Module] = field(compare=False, repr=False)


def component(kind: Any, folder: Path, dtype: torch.dtype, precision: Precision) -> Component:
    """A component in diffusers' or transformers' own folder layout."""

    def read(device: torch.device) -> torch.nn.Module:
        # A device map of one device: the libraries copy each tensor from the file to its place, none twice.
        # Not where "cuda" is what `spaces` (0.51) makes of it: nothing is read straight to that.
        direct = precision != "16-bit" or (device.type != "cpu" and not ON_ZEROGPU)
        module = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            device_map={"": device} if direct else None,
            **_quantization(kind, precision, dtype),
        )
        module = module if direct else module.to(device)
        return module.eval().requires_grad_(False)

    return _component(
        kind, folder.name, folder / "config.json", weights_files(folder), dtype, precision, read
    )


def component_from_file(
    kind: Any, file: Path, layout: Path, dtype: torch.dtype, precision: Precision
) -> Component:
    """A transformer from one file, in its original or in diffusers' names, with the config of the pipeline in
    the folder `layout`."""

    def read(device: torch.device) -> torch.nn.Module:
        module = kind.from_single_file(
            str(file),
            config=str(layout),
            subfolder="transformer",
            dtype=dtype,
            **_quantization(kind, precision, dtype),
        )
        if precision == "16-bit":
            module = module.to(device)
        return module.eval().requires_grad_(False)

    config = layout / "transformer" / "config.json"
    return _component(kind, file.stem, config, [file], dtype, precision, read)


def weights_files(folder: Path) -> list[Path]:
    """The files that a component's weights are read from."""
    return sorted(path for path in folder.glob("*.safetensors") if not _FP16_VARIANT.search(path.name))


def _component(
    kind: Any,
    name: str,
    config: Path,
    files: list[Path],
    dtype: torch.dtype,
    precision: Precision,
    read: Callable[[torch.device], torch.nn.Module],
) -> Component:
    key = (kind.__name__, str(dtype), precision, _config(config), *map(_content, files))
    size = round(sum(_elements(file) for file in files) * dtype.itemsize * _SHARE[precision])
    return Component(key, name, size, precision == "16-bit", read)


def _content(file: Path) -> str:
    """What is in a file, without reading it: the Hub's own SHA-256, which its cache has as the file's real
    name; else which file of this machine it is, at which version."""
    real = file.resolve()
    if _SHA256.fullmatch(real.name):
        return real.name
    stat = real.stat()
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def _config(file: Path) -> str:
    config = {
        key: value
        for key, value in json.loads(file.read_text(encoding="utf-8")).items()
        if key not in _PASSING
    }
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _elements(file: Path) -> int:
    with safe_open(file, "pt") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118 (no dict)
    return sum(torch.Size(shape).numel() for shape in shapes)


def _quantization(kind: Any, precision: Precision, dtype: torch.dtype) -> dict[str, Any]:
    if precision == "16-bit":
        return {}
    library = diffusers if issubclass(kind, diffusers.ModelMixin) else transformers
    if precision == "8-bit":
        config = library.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = library.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config}
