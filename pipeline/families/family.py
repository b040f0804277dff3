"""The description of a family of models: all that differs between one diffusers pipeline and another.

A family's module (sd3.py, z_image.py) makes one `Family` of these; `pipeline.families` registers it. Nothing
here imports torch, diffusers or another room of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict


class GuidedJob(Protocol):
    """What a family reads of a job."""

    @property
    def guidance(self) -> float: ...


class PreviewFactors(BaseModel):
    """A linear map from latents, as the transformer sees them, to RGB in [0, 1]:
    `factors` has a row of three for each latent channel, `bias` is what a zero latent looks like."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    factors: list[tuple[float, float, float]]
    bias: tuple[float, float, float]

    @classmethod
    def from_signed(
        cls, rows: list[tuple[float, float, float]], bias: tuple[float, float, float]
    ) -> PreviewFactors:
        """The same map of factors that give RGB in [-1, 1], as others publish them."""
        return cls(
            factors=[(r / 2, g / 2, b / 2) for r, g, b in rows],
            bias=(0.5 + bias[0] / 2, 0.5 + bias[1] / 2, 0.5 + bias[2] / 2),
        )


@dataclass(frozen=True)
class TextEncoder:
    """One of a family's text encoders, as far as reading length goes.

    tokenizer: the component's name. network: that of the text encoder which reads with it. title: what a
    warning calls it. length: the tokens it reads, special ones included, from the tokenizer and the `tokens`
    of the call. chat: whether the prompt is wrapped in a chat template.
    """

    tokenizer: str
    network: str
    title: str
    length: Callable[[Any, int], int]
    chat: bool = False


@dataclass(frozen=True)
class Cost:
    """What a model takes on one H200, in bf16, eager.

    forward: seconds of one transformer forward of one picture of 1024 × 1024. attention: the share of it that
    grows with the square of the pixels; the rest grows with the pixels. floor: seconds below which no step
    comes, however small: the CPU needs them to launch the kernels. encode: seconds for the prompts. decode:
    seconds a megapixel.
    """

    forward: float
    attention: float
    floor: float
    encode: float = 0.1
    decode: float = 0.087


def two_forwards_guided(_spec: Any, guided: bool) -> float:
    """The transformer's forward passes in a step where classifier-free guidance takes a second one."""
    return 2.0 if guided else 1.0


def no_options(_spec: Any) -> dict[str, Any]:
    """No arguments of the pipeline's call that other families don't have."""
    return {}


@dataclass(frozen=True)
class Family:
    """How one family of diffusers pipelines is driven, and what is known of its models.

    title: for people. pipeline: the diffusers class.
    text_encoders: the one that reads longest, which is also the largest, last. t5_optional: whether that one
    is a T5 that the pipeline can do without. usual_tokens: the length that it is given where no prompt needs
    more; a longer prompt gets the model's full length. languages: those that prompts are best written in.
    guidance_threshold: the guidance scale up to which classifier-free guidance is off; above it, and only
    there, a negative prompt is read.
    encode: (pipe, prompt, negative prompt, tokens) → keyword arguments of the pipeline's call. The negative
    prompt is None where guidance is off.
    call_options: (spec) → further keyword arguments, from what is special to a model's entry.
    preview_factors: published ones, by the name that `preview` in models.yaml has for them.
    forwards: (spec, whether guidance is on) → forward passes of the transformer in a step, on average.
    usual_cost: what a model takes of which nothing better is known. costs: what is known, by model id.
    transformer_tensors: what names of tensors tell this family's transformer in a file: alternatives, each of
    patterns that must all be found. lora_tensors: a pattern that tells a LoRA made for it.
    """

    title: str
    pipeline: str
    text_encoders: tuple[TextEncoder, ...]
    usual_tokens: int
    languages: str
    guidance_threshold: float
    encode: Callable[[Any, str, str | None, int], dict[str, Any]]
    usual_cost: Cost
    transformer_tensors: tuple[tuple[str, ...], ...]
    lora_tensors: str
    t5_optional: bool = False
    call_options: Callable[[Any], dict[str, Any]] = no_options
    forwards: Callable[[Any, bool], float] = two_forwards_guided
    costs: Mapping[str, Cost] = field(default_factory=dict)
    preview_factors: Mapping[str, PreviewFactors] = field(default_factory=dict)

    @property
    def largest_encoder(self) -> str:
        """The name of the largest text encoder in the pipeline."""
        return self.text_encoders[-1].network

    def guided(self, job: GuidedJob) -> bool:
        """Whether classifier-free guidance runs in this job, and its negative prompt is read."""
        return job.guidance > self.guidance_threshold

    def cost(self, model: str) -> Cost:
        """What the model with this id takes, or what is assumed of one that wasn't measured."""
        return self.costs.get(model, self.usual_cost)


def tokenizer_bound(tokenizer: Any, _tokens: int) -> int:
    """The length of an encoder that reads as much as its tokenizer says, whatever the call."""
    return tokenizer.model_max_length


def as_called(_tokenizer: Any, tokens: int) -> int:
    """The length of an encoder that reads as much as the call says."""
    return tokens
