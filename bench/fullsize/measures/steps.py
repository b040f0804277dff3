"""Seconds: per step, to encode and to decode, for every model at its default settings, beside the plain
diffusers pipeline over the same files in the same process; and what a step's preview costs.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import torch

from bench.fullsize import drive
from pipeline.catalog.catalogue import Catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.devices.hardware import device_for
from pipeline.families import FAMILIES
from pipeline.request import Job

PAIRS = 3
"""Pictures of each kind that are timed, in turns, after one that isn't."""
PREVIEW = ("one",)
PREVIEW_PAIRS = 5

Result = tuple[str, dict[str, Any]]


def parts(folder: Path, only: list[str]) -> tuple[str, ...]:
    """A process for each model."""
    return tuple(drive.ids(drive.catalogue(folder, only)))


def steps(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """One model, by the engine and by plain diffusers in turns. part: its id."""
    catalogue = drive.catalogue(folder, [part])
    spec = catalogue[part]
    engine = drive.engine(catalogue)
    job = engine.check({"prompt": drive.PROMPT, "model": part, "seed": drive.SEED})
    ours: list[dict[str, float | None]] = []
    plain: list[dict[str, float]] = []
    pipe = _pipeline(spec)
    for number in range(PAIRS + 1):
        prompt = f"{drive.PROMPT}, {number}"
        followed = drive.draw(engine, part, prompt=prompt)
        if followed.last.phase != "finished":
            yield part, drive.outcome(followed.last)
            return
        took, picture = _plainly(pipe, spec, job.model_copy(update={"prompt": prompt}))
        if number:
            ours.append(_split(followed))
            plain.append(took)
    found: dict[str, Any] = drive.outcome(followed.last)
    found |= {"steps": job.steps, "guidance": job.guidance, "size": f"{job.width}×{job.height}"}
    found["ours"] = {key: _median(one[key] for one in ours) for key in ours[0]}
    found["diffusers"] = {key: _median(one[key] for one in plain) for key in plain[0]}
    found["ratio"] = {
        key: found["ours"][key] / found["diffusers"][key] for key in ("step", "whole") if found["ours"][key]
    }
    found["to diffusers' picture"] = drive.difference(drive.pixels(followed.last), picture)
    yield part, found


def preview(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """The first model with previews and without, in turns, in one engine: a second entry over the same
    weights has no factors."""
    spec = next(iter(drive.catalogue(folder, only)))
    bare = spec.model_copy(update={"id": f"{spec.id}-bare", "preview": None})
    engine = drive.engine(Catalogue([spec, bare]))
    for model in (spec.id, bare.id):
        ended = drive.draw(engine, model).last
        if ended.phase != "finished":
            yield "cost", drive.outcome(ended)
            return
    took: dict[str, list[float]] = {spec.id: [], bare.id: []}
    previews = 0
    for number in range(PREVIEW_PAIRS):
        for model in (spec.id, bare.id) if number % 2 else (bare.id, spec.id):
            followed = drive.draw(engine, model)
            took[model].append(followed.step_seconds or 0.0)
            if model == spec.id:
                previews = len(followed.steps)
    ratios = [one / other - 1 for one, other in zip(took[spec.id], took[bare.id]) if other]
    yield (
        "cost",
        {
            "model": spec.id,
            "with": median(took[spec.id]),
            "without": median(took[bare.id]),
            "extra": median(ratios) if ratios else None,
            "each": ratios,
            "steps seen": previews,
            "steps": spec.defaults.steps,
        },
    )


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _split(followed: drive.Followed) -> dict[str, float | None]:
    return {
        "encode": followed.between("encoding", "denoising"),
        "step": followed.step_seconds,
        "decode": followed.between("decoding", "finished"),
        "whole": followed.between("encoding", "finished") or followed.first["finished"],
    }


def _pipeline(spec: ModelSpec) -> Any:
    device = device_for(spec)
    pipe = getattr(diffusers, FAMILIES[spec.family].pipeline).from_pretrained(
        spec.source, dtype=device.torch_dtype
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device.torch_device)


@torch.no_grad()
def _plainly(pipe: Any, spec: ModelSpec, job: Job) -> tuple[dict[str, float], Any]:
    """The same picture by diffusers alone, its parts timed with the GPU waited for, and its pixels."""
    family = FAMILIES[spec.family]
    tokens = min(family.usual_tokens, spec.limits.tokens[1])  # PROMPT is shorter, so the engine takes as many
    clock = [_now()]
    embeds = family.encode(pipe, job.prompt, job.negative_prompt if family.guided(job) else None, tokens)
    clock.append(_now())
    latents = pipe(
        **embeds,
        width=job.width,
        height=job.height,
        num_inference_steps=job.steps,
        guidance_scale=job.guidance,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        output_type="latent",
        **family.call_options(spec),
    ).images
    clock.append(_now())
    vae = pipe.vae
    latents = latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
    image = pipe.image_processor.postprocess(vae.decode(latents, return_dict=False)[0], output_type="pil")[0]
    image.save(io.BytesIO(), "PNG", compress_level=4)  # as ours: its event is the PNG
    clock.append(_now())
    encode, denoise, decode = (after - before for before, after in pairwise(clock))
    took = {"encode": encode, "step": denoise / job.steps, "decode": decode, "whole": clock[-1] - clock[0]}
    return took, drive.as_pixels(image)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
