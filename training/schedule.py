"""The learning-rate schedule that the VAE and the MMDiT share."""

from __future__ import annotations

import math

import torch

WARM_UP = 300  # steps
FLOOR = 0.01  # the last step's share of the peak rate


def warm_cosine(optimizer: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Sets the rate of this step: linear warm-up, then half a cosine (Loshchilov & Hutter 2016)."""
    warm = min(1.0, (step + 1) / min(WARM_UP, max(1, steps // 4)))
    cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(peak * warm * cosine)
        else:
            group["lr"] = peak * warm * cosine
