"""What one file of weights is, told from its first bytes: safetensors' header says all tensors' names, types
and shapes. No tensor is read, and nothing here imports torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import WeightsError
from pipeline.families import FAMILIES

SUFFIX = ".safetensors"
_LONGEST_HEADER = 100_000_000
"""Bytes; what the safetensors library takes at most."""
_PREFIX = "model.diffusion_model."
"""Before a transformer's names where the file has the VAE or text encoders, too, and in many that haven't."""
_AGAIN = "copy or download it again"


class Tensor(NamedTuple):
    """A tensor as the header has it. dtype: in safetensors' words (F16, BF16, F8_E4M3, …)."""

    dtype: str
    shape: tuple[int, ...]


def header(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a safetensors file by their names.

    Raises:
        WeightsError: it is none, or not whole: names the file, says what it is instead and what to do.
    """
    try:
        stat = file.stat()
        return _header(file, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise WeightsError(f"{file.name} can't be read ({error.strerror}): let this user read it.") from error


@lru_cache(maxsize=256)
def _header(file: Path, _version: tuple[int, ...]) -> Mapping[str, Tensor]:
    """Read once for each version of the file."""
    with file.open("rb") as opened:
        begin = opened.read(512)
        size = file.stat().st_size
        if words := _something_else(begin, size):
            raise WeightsError(f"{file.name} is {words}.")
        length = int.from_bytes(begin[:8], "little")
        if not 2 <= length <= _LONGEST_HEADER or begin[8:9] != b"{":
            raise WeightsError(
                f"{file.name} is no safetensors file, or a damaged one: its first bytes are none of those "
                f"that one begins with. If it should be one, {_AGAIN}."
            )
        opened.seek(8)
        text = opened.read(length)
    parsed = _parsed(text) if len(text) == length else ({}, size)
    if parsed is None:
        raise WeightsError(f"{file.name} is damaged: its header can't be read; {_AGAIN}.")
    tensors, end = parsed
    if size < 8 + length + end:
        whole = f" of {_bytes(8 + length + end)}" if tensors else ""
        raise WeightsError(
            f"{file.name} is damaged: it ends after {_bytes(size)}{whole}, as a copy or download does that "
            f"was cut off; {_AGAIN}."
        )
    if size > 8 + length + end:
        raise WeightsError(
            f"{file.name} is damaged: it goes on behind the last tensor that its header names; {_AGAIN}."
        )
    return tensors


def _something_else(begin: bytes, size: int) -> str:
    """What a file is that can't be safetensors, in words that say what to do; empty where it may be."""
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not size:
        return f"damaged: it is empty; {_AGAIN}"
    if begin.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned, or download it"
        )
    if text[:1] == b"<":
        return (
            "damaged: it is a web page (HTML or XML), which a download saves when it is answered by a page "
            "for logging in or an error; download it again, logged in or with a token"
        )
    if begin.startswith(b"GGUF"):
        return "in GGUF, the format of llama.cpp, which isn't read here: take the model's safetensors file"
    if begin.startswith(b"PK\x03\x04") or (begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05"):
        return (
            "in PyTorch's own format (a pickle, as .ckpt, .pt and .bin are), which isn't read here since "
            "reading it can run any program: take the model's safetensors file, or convert it"
        )
    if text[:1] in (b"{", b"["):
        return "JSON, not weights: name the safetensors file"
    return ""


def _parsed(text: bytes) -> tuple[dict[str, Tensor], int] | None:
    """A header's tensors, and where the last one ends; None where it can't be read."""
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {
            name: Tensor(str(one["dtype"]), tuple(map(int, one["shape"]))) for name, one in entries.items()
        }
        return tensors, max((int(one["data_offsets"][1]) for one in entries.values()), default=0)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None


def transformer_fault(file: Path, family: str) -> str:
    """Why a single file can't be this family's transformer, as far as its header shows, in words for the
    owner; empty where it can.

    Raises:
        WeightsError: as of `header`.
    """
    tensors = header(file)
    names = list(tensors)
    if words := _lora(tensors):
        return (
            f"{file.name} is {words}, not a transformer's weights: merge it into the model that it was made "
            "for and save that, or name another file."
        )
    if _has(names, r"(^|\.)(control(net)?_|controlnet_blocks|zero_convs?|input_hint_block)"):
        return f"{file.name} is a ControlNet, not a transformer's weights: name the transformer's file."
    parts = transformer_part(tensors)
    kind, wanted = _kind(parts), FAMILIES[family].title
    if kind in FAMILIES and kind != family:
        return (
            f"{file.name} has the transformer of {FAMILIES[kind].title}, and family {family} means {wanted}: "
            "mend `family` in models.yaml, and `base` with it, or name another file."
        )
    if kind != family:
        what = (
            f"{file.name} is {kind}" if kind else f"{file.name} has no tensors of a transformer that is known"
        )
        return f"{what}, and family {family} means the transformer of {wanted}: name another file."
    if _quantised(parts):
        return (
            f"{file.name} is quantised (scaled 8-bit or 4-bit numbers), which isn't read here: take the file "
            "in 16 bits; `plan: quantized` in models.yaml makes it small on the GPU."
        )
    return ""


def transformer_part(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a file that may hold a whole checkpoint, the transformer's tensors, by their names in the file."""
    part = {name: one for name, one in tensors.items() if name.startswith(_PREFIX)}
    return part or dict(tensors)


def bare_name(name: str) -> str:
    """A transformer's tensor's name, without what some files have before it."""
    return name.removeprefix(_PREFIX)


_Kinds = tuple[tuple[str, tuple[str, ...]], ...]
"""(kind, what its names have: all of these). The first that fits counts, so what is special goes first."""
_SPECIAL: _Kinds = (
    ("a transformer such as FLUX's", (r"^(double_blocks|single_transformer_blocks)\.0\.",)),
    ("a transformer such as FLUX's", (r"^single_blocks\.0\.",)),
    ("the transformer of Qwen-Image", (r"^transformer_blocks\.0\.txt_m",)),
)
_OTHERS: _Kinds = (
    (
        "a UNet of Stable Diffusion 1, 2 or XL",
        (r"^(input_blocks|down_blocks)\.0\.", r"^(middle_block|mid_block)\."),
    ),
    ("a transformer of Wan", (r"^blocks\.0\.cross_attn\.", r"^(head\.modulation|patch_embedding\.)")),
    ("a VAE", (r"(^|\.)encoder\.(conv_in|down)", r"(^|\.)decoder\.(conv_in|up)")),
    ("a T5 text encoder", (r"(^|\.)encoder\.block\.0\.layer\.0\.SelfAttention\.",)),
    ("a CLIP text encoder", (r"(^|\.)text_model\.encoder\.layers\.0\.",)),
    ("a language model", (r"(^|\.)layers\.0\.self_attn\.q_proj\.", r"(^|\.)embed_tokens\.")),
)


def _kind(part: Mapping[str, Tensor]) -> str:
    """A family of ours, or words for what a transformer isn't; empty: neither is known."""
    names = [bare_name(name) for name in part]
    ours = tuple((kind, has) for kind, family in FAMILIES.items() for has in family.transformer_tensors)
    kinds = (*_SPECIAL, *ours, *_OTHERS)
    return next((kind for kind, has in kinds if all(_has(names, one) for one in has)), "")


_LORA = re.compile(
    r"(^|[._])(lora_([AB]|down|up)|lora_linear_layer|hada_w[12]_[ab]|lokr_w[12](_[ab])?)(\.|$)|lora\.(down|up)\."
)
_OTHER_LORAS = (
    # (what it is for, what some names have), what is special first, and before our families'.
    ("FLUX", "double_blocks|single_blocks|single_transformer_blocks"),
    ("Qwen-Image", "(img|txt)_(mlp|mod)"),
    ("Stable Diffusion 1, 2 or XL", "down_blocks|up_blocks|input_blocks|mid_block"),
)


def _lora(tensors: Mapping[str, Tensor]) -> str:
    """What kind of LoRA the file is; empty where it is none."""
    found = [name for name in tensors if _LORA.search(name)]
    if not found:
        return ""
    ranks = [
        tensors[name].shape[0]
        for name in found
        if re.search(r"lora_(A|down)|lora\.down", name) and tensors[name].shape
    ]
    rank = f"rank {max(ranks)}" if ranks else ""
    ours = tuple((family.title, family.lora_tensors) for family in FAMILIES.values())
    whose = next((f"for {words}" for words, names in (*_OTHER_LORAS, *ours) if _has(found, names)), "")
    about = ", ".join(filter(None, (rank, whose)))
    return f"a LoRA ({about})" if about else "a LoRA"


def _quantised(part: Mapping[str, Tensor]) -> bool:
    floats = all(one.dtype.startswith(("F", "BF")) for one in part.values())
    return not floats or _has(part, r"(^|\.)(scaled_fp8|scale_weight|weight_scale(_2)?|comfy_quant|absmax)$")


def _has(names: Iterable[str], pattern: str) -> bool:
    compiled = re.compile(pattern)
    return any(compiled.search(name) for name in names)


def _bytes(size: int) -> str:
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} bytes"
