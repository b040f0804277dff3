"""Previews: what a half-denoised picture is heading to, as a small JPEG, at a price the drawing can't feel.

A step of a flow-matching sampler predicts a velocity; from it follows the denoised estimate x̂₀, which we
show instead of the noisy latent. A linear map turns latents into RGB (16 → 3 for SD3), good enough to
recognise a picture in, four orders of magnitude cheaper than the VAE. The map, the JPEG and the posting
run in a second thread; where that can't keep up, the newest estimate wins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from pipeline.devices.serial_thread import SerialThread
from pipeline.errors import Busy
from pipeline.families import PreviewFactors
from pipeline.sampling.thumbnail import LONGEST_SIDE, jpeg

log = logging.getLogger("stepwise")

INTERVAL = 0.125
"""Seconds: previews come this often where steps are faster. Gradio has no back-pressure: a client on a slow
line falls behind for good if it is sent more than it can take."""

Progress = dict[str, Any]
"""The fields of an Event that a step changes."""


@dataclass(frozen=True)
class Estimate:
    """One step of a flow-matching sampler, kept as its ingredients: nothing is computed until it is shown.

    sample: the latents it started from, [1, channels, height / 8, width / 8]; velocity: what the
    transformer predicted (after guidance), same shape; sigma: the noise level it started from, 1 to 0, a
    scalar on the same device (reading it as a number would wait for the GPU).
    """

    sample: torch.Tensor
    velocity: torch.Tensor
    sigma: torch.Tensor

    def denoised(self) -> torch.Tensor:
        """x̂₀ = x − σ·v, in fp32: the picture that this step believes in."""
        return self.sample.float() - self.sigma * self.velocity.float()


def watch(scheduler: Any) -> Callable[[], Estimate | None]:
    """Makes one job's own scheduler remember its last step; returns what asks for it.

    diffusers' step callback sees latents only. Recovering the velocity from two of them loses bf16's
    eight bits to a difference of near equals, so it is taken where it passes: at `scheduler.step`.
    """
    last: list[Estimate | None] = [None]
    step = scheduler.step

    def remembered(
        model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any
    ):
        result = step(model_output, timestep, sample, *args, **kwargs)
        last[0] = Estimate(sample, model_output, scheduler.sigmas[scheduler.step_index - 1])
        return result

    scheduler.step = remembered
    return lambda: last[0]


def render(estimate: Estimate, factors: PreviewFactors, width: int, height: int) -> bytes | None:
    """An estimate as a JPEG of at most LONGEST_SIDE pixels, in the picture's own proportions; None where it
    has numbers that are not finite, which would show as black.

    Args:
        width, height: the finished picture's size in pixels.
    """
    latents = estimate.denoised()[0]
    matrix = torch.tensor(factors.factors, device=latents.device)
    rgb = torch.einsum("chw,cr->hwr", latents, matrix) + torch.tensor(factors.bias, device=latents.device)
    rgb = rgb.cpu()
    if not torch.isfinite(rgb).all():
        return None
    pixels = rgb.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return jpeg(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


class Previewer:
    """Renders estimates in a thread beside the drawing's and posts each with the progress it belongs to.

    A context manager; once it is left, its thread posts nothing any more. A model without factors posts its
    progress alone, and so does a step whose preview fails: a drawing's progress depends on none.
    """

    def __init__(
        self,
        factors: PreviewFactors | None,
        size: tuple[int, int],
        post: Callable[[Progress, bytes | None], None],
        thread: SerialThread,
    ) -> None:
        """
        Args:
            size: the finished picture's (width, height) in pixels.
            post: called with progress and its preview, from the thread beside the drawing's; where there is
                nothing to render, and by `show`, from the drawing's own.
            thread: its own, until this is left.
        """
        self._factors, self._size, self._post = factors, size, post
        self._waiting: tuple[Progress, Estimate] | None = None
        self._running: Future[None] | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._shown = self._offered = float("-inf")
        self._thread = thread
        self._failed = False

    def __enter__(self) -> Previewer:
        try:
            self._running = self._thread.submit(self._run)
        except Busy as error:  # no thread for them
            log.warning("No previews of this picture: %s", error)
            self._factors = None
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._running is not None and (error := self._running.exception()):
            log.warning("No more progress of this picture: %r", error, exc_info=error)

    def offer(self, progress: Progress, estimate: Estimate | None) -> None:
        """Called after every step; takes it if, at this pace, the next one would come too late."""
        now = time.monotonic()
        step, self._offered = now - self._offered, now
        if now - self._shown + min(step, INTERVAL) <= INTERVAL:
            return
        self._shown = now
        if estimate is None or self._factors is None:
            self._post(progress, None)
            return
        with self._changed:
            self._waiting = (progress, estimate)
            self._changed.notify()

    def show(self, progress: Progress, estimate: Estimate | None) -> None:
        """Renders this one now, in the caller's thread: the last picture of a stopped drawing."""
        if estimate is not None and self._factors is not None:
            self._post(progress, self._render(estimate, self._factors))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._closed or self._waiting is None:
                    return
                (progress, estimate), self._waiting = self._waiting, None
            assert self._factors is not None
            self._post(progress, self._render(estimate, self._factors))

    def _render(self, estimate: Estimate, factors: PreviewFactors) -> bytes | None:
        """As `render`; None, too, where that fails, which the log says once of each picture."""
        try:
            return render(estimate, factors, *self._size)
        except Exception as error:
            if not self._failed:
                self._failed = True
                log.warning("A preview of this picture can't be made: %r", error, exc_info=error)
            return None
