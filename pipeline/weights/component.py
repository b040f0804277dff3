"""One neural network of a pipeline: which files it is, known by their content, and how they are read.

Two models whose text encoder is the same file have the same `Component`, so residency.py loads it once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from safetensors import safe_open

from pipeline.devices.memory_plans import EIGHT_BITS, FOUR_BITS
from pipeline.devices.zerogpu_sizes import ON_ZEROGPU
from pipeline.errors import WeightsError, quoted
from pipeline.weights.profile import Profile
from pipeline.weights.weights_file import Tensor, bare_name, header, transformer_part

Precision = Literal["16-bit", "8-bit", "4-bit"]
"""How a component's matrices are kept; 16-bit stands for the device's own dtype, fp32 on a CPU."""

_SHARE = {"16-bit": 1.0, "8-bit": EIGHT_BITS, "4-bit": FOUR_BITS}
"""Of the 16-bit size."""
_SHA256 = re.compile("[0-9a-f]{64}")
_BLOCK = re.compile(r"\w+\.\d+(?=\.)")
"""What the name of a tensor in a block begins with."""
_FP16_VARIANT = re.compile(r"\.fp16(-\d+-of-\d+)?\.safetensors$")
_PASSING = ("_name_or_path", "transformers_version", "_diffusers_version", "torch_dtype", "dtype")
"""Keys of a config that say where it came from, or what `dtype` overrides: not what the network is."""


@dataclass(frozen=True)
class Component:
    """A network that can be read, and be kept for every model that has the same.

    key: what it is: class, precision, profile, patches, config and content of its files. name: for people.
    size: bytes of its tensors once read. movable: whether its tensors may be moved to host memory and back as
    they are. read: (device) → the module there, in evaluation mode.
    """

    key: tuple[str, ...]
    name: str = field(compare=False)
    size: int = field(compare=False)
    movable: bool = field(compare=False)
    read: Callable[[torch.device], torch.nn.Module] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Treatment:
    """What a network is read as, besides what its files say: all of it is part of the component's key.

    dtype: of its tensors. precision: of its matrices. profile: how it is run. patches: the identities of
    those that change it.
    """

    dtype: torch.dtype
    precision: Precision
    profile: Profile
    patches: tuple[str, ...]


def component(kind: Any, folder: Path, treatment: Treatment) -> Component:
    """A component in diffusers' or transformers' own folder layout."""
    dtype, precision = treatment.dtype, treatment.precision

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

    files = weights_files(folder)
    elements = sum(_elements(file) for file in files)
    return _component(kind, folder.name, folder / "config.json", files, elements, treatment, read)


def component_from_file(kind: Any, file: Path, layout: Path, base: str, treatment: Treatment) -> Component:
    """A transformer from one file, in its original or in diffusers' names, with the config of the pipeline in
    the folder `layout`. What else is in the file is left there.

    Args:
        base: how that pipeline is called.

    Raises:
        WeightsError: the file isn't a transformer like the pipeline's.
    """
    dtype, precision = treatment.dtype, treatment.precision
    config = layout / "transformer" / "config.json"
    part = transformer_part(header(file))
    wanted = _shapes(kind, config.parent)
    if _in_diffusers_names(part, wanted):
        # diffusers (0.42) knows its own names only where there are no others.
        part = {
            name: tensor
            for name, tensor in part.items()
            if (bare := bare_name(name)) in wanted or _BLOCK.match(bare)
        }
    if words := _misfit(kind, part, wanted, kind.load_config(config.parent)):
        raise WeightsError(
            f"{file.name} is no transformer like that of {base}: {words}. Mend `base` in models.yaml (the "
            "pipeline that the file was made from), or `source`."
        )

    def read(device: torch.device) -> torch.nn.Module:
        with safe_open(file, "pt") as opened:
            tensors = {bare_name(name): opened.get_tensor(name) for name in part}
        module = kind.from_single_file(
            tensors,
            config=str(layout),
            subfolder="transformer",
            dtype=dtype,
            **_quantization(kind, precision, dtype),
        )
        if precision == "16-bit":
            module = module.to(device)
        return module.eval().requires_grad_(False)

    elements = sum(torch.Size(tensor.shape).numel() for tensor in part.values())
    return _component(kind, file.stem, config, [file], elements, treatment, read)


def _shapes(kind: Any, folder: Path) -> dict[str, tuple[int, ...]]:
    """The tensors that a network of this configuration has, none of them made."""
    with init_empty_weights(include_buffers=True):
        module = kind.from_config(kind.load_config(folder))
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _in_diffusers_names(part: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> bool:
    """Whether most of a file's tensors have the names that are wanted: some are the same in both forms."""
    return 2 * sum(bare_name(name) in wanted for name in part) > len(part)


def _misfit(kind: Any, part: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], config: Any) -> str:
    """How a file's tensors differ from the wanted ones, in words; empty where they are the same."""
    given = {bare_name(name): torch.empty(tensor.shape, device="meta") for name, tensor in part.items()}
    if not _in_diffusers_names(part, wanted):
        # What from_single_file does, here with shapes alone.
        loadable: Any = SINGLE_FILE_LOADABLE_CLASSES[kind.__name__]
        convert = loadable["checkpoint_mapping_fn"]
        try:
            given = convert(config=config, checkpoint=given)
        except (LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            return f"its tensors have other names, or some are missing ({quoted(str(error))})"
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
    for name, shape in shapes.items():
        if name in wanted and shape != wanted[name]:
            return f"{name} is {_times(shape)} there, and {_times(wanted[name])} are expected"
    if missing := [name for name in wanted if name not in shapes]:
        return f"it lacks {len(missing)} of {len(wanted)} tensors, {missing[0]} the first"
    # diffusers passes over what the model has no place for; in its blocks that is no trifle.
    more = [name for name in shapes if name not in wanted and _BLOCK.match(name)]
    return f"it has {len(more)} tensors more, {more[0]} the first" if more else ""


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"


def weights_files(folder: Path) -> list[Path]:
    """The files that a component's weights are read from."""
    return sorted(path for path in folder.glob("*.safetensors") if not _FP16_VARIANT.search(path.name))


def _component(
    kind: Any,
    name: str,
    config: Path,
    files: list[Path],
    elements: int,
    treatment: Treatment,
    read: Callable[[torch.device], torch.nn.Module],
) -> Component:
    key = (
        kind.__name__,
        str(treatment.dtype),
        treatment.precision,
        treatment.profile.name,
        "\n".join(treatment.patches),
        _config(config),
        *map(_content, files),
    )
    size = round(elements * treatment.dtype.itemsize * _SHARE[treatment.precision])
    return Component(key, name, size, treatment.precision == "16-bit", read)


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
