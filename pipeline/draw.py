"""From a job and its weights to pictures: encode, denoise step by step, decode.

Runs in the drawing's own thread, which owns the device meanwhile. diffusers does the drawing; its step
callback feeds the drawing's events and carries the stop.
"""

from __future__ import annotations

import time
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from pipeline.drawing import Drawing
from pipeline.errors import NonFiniteLatents, Stopped
from pipeline.families import FAMILIES
from pipeline.preview import Previewer, watch
from pipeline.prompts import artefact_warnings, sequence_length, truncation_warnings
from pipeline.recipe import to_png
from pipeline.thumbnail import jpeg
from pipeline.weights import Weights


@torch.no_grad()
def draw(drawing: Drawing, weights: Weights, decode_pace: dict[str, float]) -> None:
    """Draws the job's images one after the other: batch 1 each, so that every image's own recipe gives
    its very pixels again (a batch of 2 changes 2.5e-5 of them).

    Args:
        decode_pace: seconds a pixel that decoding last took, by model id; read for the ETA, and updated.

    Raises:
        Stopped, NonFiniteLatents, and whatever torch and diffusers raise.
    """
    job, spec = drawing.job, weights.spec
    decode_seconds = decode_pace.get(spec.id, 0.0) * job.width * job.height
    made_with = _made_with(weights)
    with weights.pipeline() as pipe:
        embeds = _encode(drawing, weights, pipe)
        for index in range(job.images):
            latents = _denoise(drawing, weights, pipe, embeds, index, decode_seconds)
            drawing.update(phase="decoding", step=job.steps)
            began = time.monotonic()
            image = _decode(pipe, latents, spec.name)
            png = to_png(image, job, index, made_with)
            decode_seconds = time.monotonic() - began
            decode_pace[spec.id] = decode_seconds / (job.width * job.height)
            drawing.check()
            event = drawing.latest
            drawing.update(images=(*event.images, png), previews=(*event.previews[:index], jpeg(image)))


def _encode(drawing: Drawing, weights: Weights, pipe: Any) -> dict[str, Any]:
    job, spec = drawing.job, weights.spec
    family = FAMILIES[spec.family]
    drawing.update(phase="encoding")
    tokenizers = {reader.tokenizer: getattr(pipe, reader.tokenizer) for reader in family.readers}
    prompts = {"prompt": job.prompt}
    if job.negative_prompt and job.guidance > family.guidance_off:
        prompts["negative prompt"] = job.negative_prompt
    tokens = sequence_length(family, tokenizers, list(prompts.values()), spec.limits.tokens[1])
    cuts = [
        warning
        for name, text in prompts.items()
        for warning in truncation_warnings(family, tokenizers, name, text, tokens)
    ]
    cuts += artefact_warnings(spec, tokenizers, prompts)
    drawing.update(warnings=(*drawing.latest.warnings, *cuts))
    drawing.check()
    embeds = family.encode(pipe, job, tokens)
    drawing.check()
    return embeds


def _denoise(
    drawing: Drawing,
    weights: Weights,
    pipe: Any,
    embeds: dict[str, Any],
    index: int,
    decode_seconds: float,
) -> torch.Tensor:
    """Latents of image `index`, [1, channels, height / 8, width / 8], as the transformer sees them."""
    job, spec = drawing.job, weights.spec
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    estimate = watch(pipe.scheduler)
    began = time.monotonic()
    progress: dict[str, Any] = {}

    def post(progress: dict[str, Any], preview: bytes | None) -> None:
        shown = drawing.latest.previews[:index]
        drawing.update(**progress, **({} if preview is None else {"previews": (*shown, preview)}))

    def on_step(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        each = (time.monotonic() - began) / (step + 1)
        steps_left = job.steps - step - 1 + (job.images - index - 1) * job.steps
        progress.update(step=step + 1, eta=each * steps_left + decode_seconds * (job.images - index))
        drawing.check()
        previewer.offer(dict(progress), estimate())
        return tensors

    drawing.update(phase="denoising", step=0, image=index + 1)
    previewer = Previewer(weights.factors, (job.width, job.height), post)
    try:
        with previewer:
            latents = pipe(
                **embeds,
                width=job.width,
                height=job.height,
                num_inference_steps=job.steps,
                guidance_scale=job.guidance,
                generator=torch.Generator("cpu").manual_seed(job.seed + index),
                output_type="latent",
                callback_on_step_end=on_step,
                **FAMILIES[spec.family].options(spec),
            ).images
    except Stopped:
        # Once the previewer's thread has ended, which might still have posted an earlier step.
        previewer.show(progress, estimate())
        raise
    if not torch.isfinite(latents).all():
        raise NonFiniteLatents(
            f"{spec.name} produced numbers that are not finite, so there is no picture. Try another seed, a "
            "lower guidance or fewer steps."
        )
    return latents


def _decode(pipe: Any, latents: torch.Tensor, name: str) -> Image.Image:
    vae = pipe.vae
    latents = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    pixels = vae.decode(latents, return_dict=False)[0]
    if not torch.isfinite(pixels).all():
        raise NonFiniteLatents(
            f"{name}'s VAE produced numbers that are not finite in {vae.dtype}, so there is no picture. Try "
            "another seed or a smaller size."
        )
    return pipe.image_processor.postprocess(pixels, output_type="pil")[0]


def _made_with(weights: Weights) -> dict[str, Any]:
    """What else must be the same for the same pixels."""
    spec = weights.spec
    return {
        "source": spec.id if spec.local else spec.source,
        "revision": spec.revision,
        "device": weights.device.name,
        "dtype": weights.device.dtype,
        "threads": torch.get_num_threads(),
        **{library.__name__: str(library.__version__) for library in (torch, diffusers, transformers)},
    }
