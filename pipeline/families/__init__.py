"""What differs between families of models: which diffusers pipeline draws, how it encodes a prompt, and
from which guidance on classifier-free guidance runs. Everything else is the same code for all.

A new family is one `Family` here. Nothing here imports torch or diffusers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.catalog.spec import ModelSpec
    from pipeline.request import Job


@dataclass(frozen=True)
class Reader:
    """One of a family's text encoders, as far as reading length goes.

    tokenizer: the component's name. encoder: that of the text encoder which reads with it. length: the
    tokens it reads, special ones included, from the tokenizer and the `tokens` of the call. chat: whether the
    prompt is wrapped in a chat template.
    """

    tokenizer: str
    encoder: str
    length: Callable[[Any, int], int]
    chat: bool = False


@dataclass(frozen=True)
class Family:
    """How one family of diffusers pipelines is driven.

    pipeline: the diffusers class. guidance_off: classifier-free guidance runs above this scale, and only
    then is a negative prompt read. readers: its text encoders, the one that reads longest, which is also the
    largest, last.
    encode: (pipe, job, tokens) → keyword arguments of the pipeline's call. t5: whether the largest text
    encoder is a T5 that the pipeline can do without.
    """

    pipeline: str
    guidance_off: float
    readers: tuple[Reader, ...]
    encode: Callable[[Any, Job, int], dict[str, Any]]
    t5: bool = False
    options: Callable[[ModelSpec], dict[str, Any]] = field(default=lambda spec: {})


def import_pipelines() -> None:
    """Imports all that draws, which else the first drawing of each family does: seconds."""
    import diffusers

    for family in FAMILIES.values():
        getattr(diffusers, family.pipeline)


def _encode_sd3(pipe: Any, job: Job, tokens: int) -> dict[str, Any]:
    guided = job.guidance > 1
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(
        prompt=job.prompt,
        prompt_2=None,
        prompt_3=None,
        negative_prompt=job.negative_prompt if guided else None,
        do_classifier_free_guidance=guided,
        device=pipe._execution_device,
        max_sequence_length=tokens,
    )
    return {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": negative,
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": negative_pooled,
    }


def _encode_z_image(pipe: Any, job: Job, tokens: int) -> dict[str, Any]:
    guided = job.guidance > 0
    embeds, negative = pipe.encode_prompt(
        prompt=job.prompt,
        negative_prompt=job.negative_prompt if guided else None,
        do_classifier_free_guidance=guided,
        device=pipe._execution_device,
        max_sequence_length=tokens,
    )
    return {"prompt_embeds": embeds, "negative_prompt_embeds": negative}


def _skip_layers(spec: ModelSpec) -> dict[str, Any]:
    slg = spec.skip_layer_guidance
    if slg is None:
        return {}
    return {
        "skip_guidance_layers": slg.layers,
        "skip_layer_guidance_scale": slg.scale,
        "skip_layer_guidance_start": slg.start,
        "skip_layer_guidance_stop": slg.stop,
    }


def _tokenizer_bound(tokenizer: Any, _: int) -> int:
    return tokenizer.model_max_length


def _given(_: Any, tokens: int) -> int:
    return tokens


FAMILIES = {
    "sd3": Family(
        pipeline="StableDiffusion3Pipeline",
        guidance_off=1,
        readers=(
            Reader("tokenizer", "text_encoder", _tokenizer_bound),
            Reader("tokenizer_2", "text_encoder_2", _tokenizer_bound),
            Reader("tokenizer_3", "text_encoder_3", _given),
        ),
        encode=_encode_sd3,
        t5=True,
        options=_skip_layers,
    ),
    "z-image": Family(
        pipeline="ZImagePipeline",
        guidance_off=0,
        readers=(Reader("tokenizer", "text_encoder", _given, chat=True),),
        encode=_encode_z_image,
    ),
}
