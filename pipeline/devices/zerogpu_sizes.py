"""ZeroGPU's two sizes of GPU, and which models one of them holds: decided before anything is loaded, by what
their weights take in 16 bits. Facts and arithmetic only; executors/zerogpu.py draws.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

from pipeline.catalog.spec import ModelSpec

ON_ZEROGPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
"""Whether this is a Space on ZeroGPU, as `spaces` (0.51) tells it."""

GpuSize = Literal["large", "xlarge"]
"""Half an RTX Pro 6000 Blackwell with 48 GB, or a whole one with 96 GB at twice the quota
(https://huggingface.co/docs/hub/spaces-zerogpu)."""

GB = 10**9
ROOM = {"large": 45_097_156_608, "xlarge": 96 * GB}
"""Bytes of weights that each size holds; the rest is for drawing. large: above this much `spaces` (0.51,
zero/configs.json: xlarge_threshold) takes `xlarge` without a word, where the code names no size. xlarge: the
card's 102.0 GB (same file) less the 5.9 GB that `large` leaves free."""


def parts(spec: ModelSpec) -> dict[str, int]:
    """A model's parts by name, in bytes of 16-bit weights, as models.yaml's `needs` has them. Text encoders
    of one family and one size are taken for the same, and held once: whether they are shows at the start."""
    needs = spec.needs
    encoders = round((needs.text_encoders + needs.large_text_encoder) * GB)
    return {
        spec.id: round(needs.transformer * GB),
        f"{spec.family}, text encoders of {encoders} bytes": encoders,
    }


def models_to_hold(specs: Iterable[ModelSpec], size: GpuSize) -> list[ModelSpec]:
    """The models that fit on the GPU together: the first, and each later one that still fits beside those
    before.

    All are on the GPU whenever anything is drawn, for every worker gets all that was put on "cuda" at the
    start. Of models.yaml `large` holds Large and Large Turbo (43.8 GB, beside a VAE of 0.2); with Medium it
    would be 48.7.
    `xlarge` holds all.

    Args:
        specs: those that could run here, best first; what is drawn on the CPU or elsewhere isn't among them.
    """
    held: list[ModelSpec] = []
    taken: dict[str, int] = {}
    for spec in specs:
        together = taken | parts(spec)
        if sum(together.values()) <= ROOM[size]:
            held.append(spec)
            taken = together
    return held


def bytes_of(specs: Iterable[ModelSpec]) -> int:
    """What these models' weights take together, shared parts once."""
    together: dict[str, int] = {}
    for spec in specs:
        together |= parts(spec)
    return sum(together.values())
