"""From a job and its weights to pictures: encode, denoise step by step, decode.

Runs in the device's own thread, which has it to itself meanwhile. diffusers does the drawing; its step
callback feeds the drawing's events and carries the stop.
"""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
import transformers

from pipeline.devices.hardware import GB
from pipeline.devices.serial_thread import SerialThread
from pipeline.errors import NonFiniteLatents, Stopped
from pipeline.families import FAMILIES
from pipeline.recipe import to_png
from pipeline.run import Progress, Run
from pipeline.sampling.embedding_cache import EmbeddingCache, EmbeddingKey, Embeddings
from pipeline.sampling.preview import Previewer, watch
from pipeline.sampling.thumbnail import jpeg
from pipeline.sampling.tokens import artefact_warnings, sequence_length, truncation_warnings
from pipeline.weights.component import Component
from pipeline.weights.model import JobComponents, Weights, mended
from pipeline.weights.profile import drawn_as
from pipeline.weights.residency import Residency

log = logging.getLogger("stepwise")

_TILE = 512
"""Pixels a side, a quarter of which overlaps: SD3.5's VAE itself tiles above 1024 only."""


@dataclass
class Memory:
    """What one device's drawings leave for the next one: where networks are, the thread that makes previews,
    prompts that were read, and how long decoding took (seconds a pixel, by `drawn_as`, for the ETA)."""

    residency: Residency
    previews: SerialThread
    embeddings: EmbeddingCache = field(default_factory=EmbeddingCache)
    decode_pace: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def draw(run: Run, weights: Weights, memory: Memory) -> None:
    """Draws the job's images one after the other: batch 1 each, so that every image's own recipe gives
    its very pixels again (a batch of 2 changes 2.5e-5 of them). Images that are there already stay.

    Raises:
        Stopped, NonFiniteLatents, and whatever torch and diffusers raise.
    """
    job, spec = run.job, weights.spec
    kind = drawn_as(spec.id, weights.profile, weights.patches)
    decode_seconds = memory.decode_pace.get(kind, 0.0) * job.width * job.height
    made_with = _made_with(weights)
    with weights.job_components() as own:
        embeds = _encode(run, own, memory)
        pipe = own.pipeline(bring(run, weights, memory.residency, weights.denoisers))
        for index in range(len(run.latest.images), job.images):
            latents = _denoise(run, weights, memory, pipe, embeds, index, decode_seconds)
            run.update(phase="decoding", step=job.steps)
            began = time.monotonic()
            vae = _tiled(pipe.vae) if weights.plan.tiled else pipe.vae
            image = pipe.image_processor.postprocess(_decode(vae, latents, spec.name), output_type="pil")[0]
            png = to_png(image, job, index, made_with)
            decode_seconds = time.monotonic() - began
            memory.decode_pace[kind] = decode_seconds / (job.width * job.height)
            run.raise_if_cancelled()
            event = run.latest
            run.update(images=(*event.images, png), previews=(*event.previews[:index], jpeg(image)))


def bring(
    progress: Progress, weights: Weights, residency: Residency, networks: dict[str, Component]
) -> dict[str, torch.nn.Module]:
    """Makes some of the model's networks ready on the device as its plan has it, and says how far it is. A
    network that is being read can't be interrupted, but nobody who cancels need wait for it.

    Returns:
        The networks, by the same names.

    Raises:
        Stopped, WeightsError, and what reading them raises.
    """

    def report(done: int, total: int) -> None:
        progress.raise_if_cancelled()
        progress.update(phase="loading", done=done, total=total)

    spec = weights.spec
    with progress.abandonable(), mended(spec, weights.folder):
        return residency.bring(
            networks,
            room=round(spec.needs.drawing * GB),
            report=report,
            alone=weights.plan.staged,
            streamed=weights.streamed,
        )


def _encode(run: Run, own: JobComponents, memory: Memory) -> Embeddings:
    """The job's prompts as the transformer reads them, from the cache where they were read before."""
    weights = own.weights
    job, spec, family = run.job, weights.spec, FAMILIES[weights.spec.family]
    encoders, tokenizers = weights.text_encoders, own.tokenizers
    if not weights.plan.staged:  # all at once, so that one progress counts all of it
        bring(run, weights, memory.residency, weights.networks)
    run.update(phase="encoding")
    guided = family.guided(job)
    prompts = {"prompt": job.prompt}
    if job.negative_prompt and guided:
        prompts["negative prompt"] = job.negative_prompt
    tokens = sequence_length(family, encoders, tokenizers, list(prompts.values()), spec.limits.tokens[1])
    cuts = [
        warning
        for name, text in prompts.items()
        for warning in truncation_warnings(encoders, tokenizers, name, text, tokens)
    ]
    cuts += artefact_warnings(spec, encoders[-1], tokenizers, prompts)
    run.update(warnings=tuple(dict.fromkeys((*run.latest.warnings, *cuts))))
    run.raise_if_cancelled()
    needed = weights.encoders if weights.plan.staged else weights.networks
    negative_prompt = job.negative_prompt if guided else None
    keys = tuple(network.key for network in weights.encoders.values())
    key = EmbeddingKey(spec.family, keys, job.prompt, negative_prompt, tokens)
    embeds = memory.embeddings.get(key)
    if embeds is None:
        pipe = own.pipeline(bring(run, weights, memory.residency, needed))
        run.update(phase="encoding")
        embeds = family.encode(pipe, job.prompt, negative_prompt, tokens)
        memory.embeddings.put(key, embeds)
    run.raise_if_cancelled()
    return embeds


def _denoise(
    run: Run,
    weights: Weights,
    memory: Memory,
    pipe: Any,
    embeds: Embeddings,
    index: int,
    decode_seconds: float,
) -> torch.Tensor:
    """Latents of image `index`, [1, channels, height / 8, width / 8], as the transformer sees them."""
    job, spec = run.job, weights.spec
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    estimate = watch(pipe.scheduler)
    began = time.monotonic()
    progress: dict[str, Any] = {}

    def post(progress: dict[str, Any], preview: bytes | None) -> None:
        shown = run.latest.previews[:index]
        run.update(**progress, **({} if preview is None else {"previews": (*shown, preview)}))

    def on_step(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        each = (time.monotonic() - began) / (step + 1)
        steps_left = job.steps - step - 1 + (job.images - index - 1) * job.steps
        progress.update(step=step + 1, eta=each * steps_left + decode_seconds * (job.images - index))
        run.raise_if_cancelled()
        previewer.offer(dict(progress), estimate())
        return tensors

    run.update(phase="denoising", step=0, image=index + 1)
    previewer = Previewer(weights.factors, (job.width, job.height), post, memory.previews)
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
                **FAMILIES[spec.family].call_options(spec),
            ).images
    except Stopped:
        # Once the previewer has ended, which might still have posted an earlier step.
        previewer.show(progress, estimate())
        raise
    if not torch.isfinite(latents).all():
        raise NonFiniteLatents(
            f"{spec.name} produced numbers that are not finite, so there is no picture. Try another seed, a "
            "lower guidance or fewer steps."
        )
    return latents


def _tiled(vae: Any) -> Any:
    """The same VAE, decoding tile by tile: in much less memory, and with faint seams. The network is shared;
    whether it tiles is this object's own."""
    vae = copy.copy(vae)
    vae.enable_tiling()
    pixels_a_latent = vae.tile_sample_min_size // vae.tile_latent_min_size
    vae.tile_sample_min_size, vae.tile_latent_min_size = _TILE, _TILE // pixels_a_latent
    return vae


def _decode(vae: Any, latents: torch.Tensor, name: str) -> torch.Tensor:
    """[1, 3, height, width], about -1 to 1, finite, from latents as the transformer sees them."""
    pixels = _pixels(vae, latents)
    if not torch.isfinite(pixels).all() and vae.dtype != torch.float32:
        # Half precision overflows in some VAEs' decoders. A copy, for the network is shared.
        log.info("%s's VAE overflowed in %s; decoding in fp32", name, vae.dtype)
        pixels = _pixels(copy.deepcopy(vae).float(), latents)
    if not torch.isfinite(pixels).all():
        raise NonFiniteLatents(
            f"{name}'s VAE produced numbers that are not finite, in fp32 too, so there is no picture. Try "
            "another seed or a smaller size."
        )
    return pixels


def _pixels(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    latents = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    return vae.decode(latents, return_dict=False)[0]


def _made_with(weights: Weights) -> dict[str, Any]:
    """What else must be the same for the same pixels."""
    spec = weights.spec
    return {
        "source": spec.id if spec.local else spec.source,
        "revision": spec.revision,
        "device": weights.device.name,
        "dtype": weights.device.dtype,
        "plan": weights.plan.name,
        "profile": weights.profile.name,
        "patches": list(weights.patches.identities),
        "threads": torch.get_num_threads(),
        **{library.__name__: str(library.__version__) for library in (torch, diffusers, transformers)},
    }
