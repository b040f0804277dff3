"""Every number of the training run in one place: one full recipe, and a smoke one for tests.

Nothing here computes. `FULL` makes `weights/sketch` on one H200; `SMOKE` touches every line of
code on a CPU in well under a minute and makes a pipeline that loads but draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bucket:
    """Pictures of one size are trained together; `share` is its part of the training steps."""

    width: int
    height: int
    share: float

    @property
    def tokens(self) -> int:
        """Image tokens: the VAE's eightfold reduction, then patches of 2 × 2 latents."""
        return (self.width // 16) * (self.height // 16)


BUCKETS = (
    Bucket(256, 256, 0.58),
    Bucket(128, 128, 0.05),
    Bucket(192, 192, 0.04),
    Bucket(320, 320, 0.04),
    Bucket(384, 384, 0.07),
    Bucket(512, 512, 0.07),
    Bucket(384, 256, 0.04),
    Bucket(256, 384, 0.04),
    Bucket(256, 128, 0.015),
    Bucket(128, 256, 0.015),
    Bucket(512, 256, 0.02),
    Bucket(256, 512, 0.02),
)


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    objects: int = 1000  # at most this many of objects.txt
    compile: bool = True

    vae_pictures: int = 20_000
    vae_steps: int = 4500
    vae_batch: int = 32
    vae_rate: float = 1e-3

    captions_for_vocabulary: int = 60_000
    clip_vocabulary: int = 960
    text_length: int = 32  # tokens, for CLIP and T5 alike

    spelling_captions: int = 100_000
    spelling_steps: int = 4000
    spelling_batch: int = 512
    spelling_rate: float = 1.4e-3

    buckets: tuple[Bucket, ...] = BUCKETS
    flow_pictures: int = 110_000
    flow_steps: int = 14_000
    flow_batch: int = 512  # of 256 × 256; other sizes as many as give the same number of tokens
    flow_rate: float = 1.4e-3
    ema: float = 0.9995

    checkpoint_every: int = 3000


FULL = Recipe()

# For `--resume`, when a run lost its machine: new pictures, the rest of the steps, and a rate that
# starts where the full run's had come to by half its way.
RESUMED = Recipe(seed=100, flow_pictures=60_000, flow_steps=6000, flow_rate=7e-4, checkpoint_every=1500)

SMOKE = Recipe(
    objects=12,
    compile=False,
    vae_pictures=4,
    vae_steps=2,
    vae_batch=1,
    captions_for_vocabulary=300,
    clip_vocabulary=560,
    spelling_captions=40,
    spelling_steps=2,
    spelling_batch=4,
    buckets=(Bucket(128, 128, 0.5), Bucket(128, 192, 0.5)),
    flow_pictures=4,
    flow_steps=2,
    flow_batch=2,
    checkpoint_every=1000,
)
