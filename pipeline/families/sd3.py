"""Stable Diffusion 3 and 3.5: three text encoders, 16 latent channels, and Medium's skip-layer guidance."""

from __future__ import annotations

from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from pipeline.families.family import (
    Cost,
    Family,
    PreviewFactors,
    TextEncoder,
    as_called,
    tokenizer_bound,
    two_forwards_guided,
)


class SkipLayerGuidance(BaseModel):
    """Skip-layer guidance of SD3.5 Medium: which blocks, how strongly, and from which to which part
    (0 to 1) of the schedule."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    layers: list[Annotated[int, Field(ge=0)]]
    scale: Annotated[float, Field(gt=0)]
    start: Annotated[float, Field(ge=0, le=1)]
    stop: Annotated[float, Field(ge=0, le=1)]


class _Entry(Protocol):
    """What this family reads of a model's entry in models.yaml."""

    @property
    def skip_layer_guidance(self) -> SkipLayerGuidance | None: ...


def _encode(pipe: Any, prompt: str, negative_prompt: str | None, tokens: int) -> dict[str, Any]:
    embeds, negative, pooled, negative_pooled = pipe.encode_prompt(
        prompt=prompt,
        prompt_2=None,
        prompt_3=None,
        negative_prompt=negative_prompt,
        do_classifier_free_guidance=negative_prompt is not None,
        device=pipe._execution_device,
        max_sequence_length=tokens,
    )
    return {
        "prompt_embeds": embeds,
        "negative_prompt_embeds": negative,
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": negative_pooled,
    }


def _call_options(spec: _Entry) -> dict[str, Any]:
    skipped = spec.skip_layer_guidance
    if skipped is None:
        return {}
    return {
        "skip_guidance_layers": skipped.layers,
        "skip_layer_guidance_scale": skipped.scale,
        "skip_layer_guidance_start": skipped.start,
        "skip_layer_guidance_stop": skipped.stop,
    }


def _forwards(spec: _Entry, guided: bool) -> float:
    """Skip-layer guidance is a third forward, in its part of a guided drawing's steps."""
    passes = two_forwards_guided(spec, guided)
    if guided and (skipped := spec.skip_layer_guidance) is not None:
        passes += max(0.0, skipped.stop - skipped.start)
    return passes


# Latent to RGB in [-1, 1], without a bias, in Stability-AI/sd3.5, sd3_impls.py (MIT),
# SD3LatentFormat.decode_latent_to_preview. Serves every model with SD3's 16-channel VAE.
_PREVIEW = PreviewFactors.from_signed(
    [
        (-0.0645, 0.0177, 0.1052),
        (0.0028, 0.0312, 0.0650),
        (0.1848, 0.0762, 0.0360),
        (0.0944, 0.0360, 0.0889),
        (0.0897, 0.0506, -0.0364),
        (-0.0020, 0.1203, 0.0284),
        (0.0855, 0.0118, 0.0283),
        (-0.0539, 0.0658, 0.1047),
        (-0.0057, 0.0116, 0.0700),
        (-0.0412, 0.0281, -0.0039),
        (0.1106, 0.1171, 0.1220),
        (-0.0248, 0.0682, -0.0481),
        (0.0815, 0.0846, 0.1207),
        (-0.0120, -0.0055, -0.0867),
        (-0.0749, -0.0634, -0.0456),
        (-0.1418, -0.1457, -0.1259),
    ],
    bias=(0.0, 0.0, 0.0),
)

# Measured on an H200 with random weights of the true shapes, at 1024² and the default steps
# (bench/README.md): a step of Large takes 184.5 ms for two forwards, of Turbo 97.7 for one, of Medium 89.7
# for 2.19; Large's floor, the time of a forward at 512²; decoding, 87 ms. attention: of Large 14.5 of 62.2
# TFLOP, from the layers' shapes. encode: an upper bound, measured 0.05 to 0.12 s. Not measured: Medium's
# floor, by its number of blocks.
_LARGE = Cost(forward=0.0923, attention=0.233, floor=0.118)

FAMILY = Family(
    title="Stable Diffusion 3 or 3.5",
    pipeline="StableDiffusion3Pipeline",
    text_encoders=(
        TextEncoder("tokenizer", "text_encoder", "CLIP", tokenizer_bound),
        TextEncoder("tokenizer_2", "text_encoder_2", "CLIP", tokenizer_bound),
        TextEncoder("tokenizer_3", "text_encoder_3", "T5", as_called),
    ),
    usual_tokens=256,  # what diffusers' pipeline pads T5 to by default
    languages="English",
    guidance_threshold=1,
    encode=_encode,
    usual_cost=_LARGE,
    transformer_tensors=(
        (r"^joint_blocks\.0\.x_block\.",),
        (
            r"^transformer_blocks\.0\.attn\.add_q_proj\.",
            r"^time_text_embed\.text_embedder\.",
            r"^pos_embed\.",
        ),
    ),
    lora_tensors=r"joint_blocks|transformer_blocks[._]\d+[._](attn|ff|norm1)[._]",
    t5_optional=True,
    call_options=_call_options,
    forwards=_forwards,
    costs={
        "sd3.5-large": _LARGE,
        "sd3.5-large-turbo": Cost(forward=0.0977, attention=0.233, floor=0.118),
        "sd3.5-medium": Cost(forward=0.041, attention=0.376, floor=0.075),
    },
    preview_factors={"sd3": _PREVIEW},
)
