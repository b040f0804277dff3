"""Writes what was trained as a folder that diffusers' StableDiffusion3Pipeline loads.

Also fits `preview.json`, the linear map from latents to colours that shows a picture while it is
being drawn without decoding it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from training.flow import SHIFT
from training.text import TextStack

SHARD = "9MB"  # hosts want large-file storage above 10 MB


def half(module: torch.nn.Module) -> torch.nn.Module:
    """A float16 copy on the CPU, leaving the one in training alone."""
    return copy.deepcopy(module).to("cpu", torch.float16, memory_format=torch.contiguous_format).eval()


def save_pipeline(
    folder: Path, transformer: SD3Transformer2DModel, vae: AutoencoderKL, text: TextStack
) -> None:
    """Saves all parts in float16, in shards below 10 MB."""
    StableDiffusion3Pipeline(
        transformer=half(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=half(vae),
        text_encoder=half(text.clip_l),
        tokenizer=text.clip_tokenizer,
        text_encoder_2=half(text.clip_g),
        tokenizer_2=text.clip_tokenizer,
        text_encoder_3=half(text.t5),
        tokenizer_3=text.t5_tokenizer,
    ).save_pretrained(folder, max_shard_size=SHARD)


def fit_preview(latents: torch.Tensor, pictures: torch.Tensor) -> dict[str, list]:
    """Least squares from latents [N, 16, h, w], as the transformer sees them, to RGB in 0..1.

    `pictures` [N, 3, 8 h, 8 w] are in -1..1; each latent answers for the mean of its 8 × 8 pixels.
    """
    colours = F.avg_pool2d((pictures.float() + 1) / 2, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    points = latents.float().permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    points = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    solution = torch.linalg.lstsq(points.double(), colours.double()).solution
    error = (points.double() @ solution - colours).square().mean().sqrt()
    print(f"preview: root mean square error {error.item():.4f} of 1", flush=True)
    rounded = [[round(value, 5) for value in row] for row in solution.tolist()]
    return {"factors": rounded[:-1], "bias": rounded[-1]}


def save_preview(folder: Path, factors: dict[str, list]) -> None:
    (folder / "preview.json").write_text(json.dumps(factors, indent=1) + "\n", encoding="utf-8")


def megabytes(folder: Path) -> dict[str, float]:
    """The weights' size by part, in MB of 10⁶ bytes."""
    sizes: dict[str, float] = {}
    for path in sorted(folder.glob("*/*.safetensors")):
        sizes[path.parent.name] = sizes.get(path.parent.name, 0) + path.stat().st_size / 1e6
    return sizes
