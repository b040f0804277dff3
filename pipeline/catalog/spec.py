"""One entry of models.yaml: what a model is, where its weights are, and the bounds of a request to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.errors import quoted
from pipeline.families import FAMILIES, PreviewFactors, preview_factors
from pipeline.families.sd3 import SkipLayerGuidance

Count = Annotated[int, Field(ge=1)]
CountRange = tuple[Count, Count]
Provider = Literal[
    "auto", "fal-ai", "hf-inference", "nscale", "replicate", "together", "wavespeed", "zai-org"
]
"""The Inference Providers that draw for huggingface_hub (2.4); auto: the first that serves the model, in the
order that the token's account prefers."""
PlanName = Literal["resident", "encoders-off", "offload", "quantized", "without-t5"]
"""How a model is kept in memory on a GPU; devices/memory_plans.py says what each means."""
_LOCAL_KEYS = (
    "base",
    "revision",
    "device",
    "plan",
    "needs",
    "skip_layer_guidance",
    "clean_tokens",
    "preview",
)
_INFERENCE_KEYS = ("provider", "timeout")
_HUB_ID = re.compile(r"[a-zA-Z0-9][\w.-]*/[a-zA-Z0-9][\w.-]*", re.ASCII)


def _mistake(key: str, words: str) -> PydanticCustomError:
    """A mistake that shows only when keys are compared: `key` (dotted) is where to mend it."""
    return PydanticCustomError("mistake", "{words}", {"words": words, "key": key})


def _registered(name: str, known: Iterable[str]) -> str:
    """The name, if it is a known one. Asked when an entry is read: families register themselves."""
    if name not in known:
        names = " or ".join(f"'{one}'" for one in known)
        raise _mistake("", f"should be {names}; got {quoted(name)}")
    return name


FamilyName = Annotated[str, AfterValidator(lambda name: _registered(name, FAMILIES))]
PreviewName = Annotated[str, AfterValidator(lambda name: _registered(name, preview_factors()))]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class License(_Entry):
    """Under which terms the weights may be used.

    gated: the Hub asks for a token and a click first. notice, policy: what the licence wants shown where
    pictures are made, and the address of its acceptable-use policy.
    """

    name: str
    url: str
    gated: bool = False
    notice: str = ""
    policy: str = ""


class Defaults(_Entry):
    """What a request gets where it says nothing. Sizes in pixels."""

    steps: Count
    guidance: Annotated[float, Field(ge=0)]
    width: Count
    height: Count


class Limits(_Entry):
    """The bounds of a request, each `[min, max]`, both allowed.

    steps: denoising steps an image; guidance: classifier-free guidance scale; pixels: width × height of
    one image; side: width and height, in pixels; images: images a job; tokens: what the longest-reading
    text encoder takes, its own special tokens included; multiple: width and height are multiples of it;
    total_pixels: the most that width × height × images may be.
    """

    steps: CountRange
    guidance: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
    pixels: CountRange
    side: CountRange
    images: CountRange
    tokens: CountRange
    multiple: Count
    total_pixels: Count

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        for name in ("steps", "guidance", "pixels", "side", "images", "tokens"):
            low, high = getattr(self, name)
            if low > high:
                raise _mistake(name, f"must be [min, max], smaller first; got [{low}, {high}]")
        return self


class Needs(_Entry):
    """What a machine must have, in GB (10⁹ bytes). All 0: it draws anywhere.

    transformer, large_text_encoder, text_encoders: the transformer, the largest text encoder and the other
    ones in 16 bits; drawing: what drawing at the default size adds, the VAE included; t5: whether the largest
    text encoder is a T5 that the model can do without; disk: to hold the weights.
    """

    transformer: Annotated[float, Field(ge=0)] = 0
    text_encoders: Annotated[float, Field(ge=0)] = 0
    large_text_encoder: Annotated[float, Field(ge=0)] = 0
    drawing: Annotated[float, Field(ge=0)] = 0
    t5: bool = False
    disk: Annotated[float, Field(ge=0)] = 0

    @property
    def known(self) -> bool:
        """Whether the entry says what the model weighs."""
        return self.transformer > 0

    @property
    def weights(self) -> float:
        """GB of transformer and text encoders in 16 bits."""
        return self.transformer + self.text_encoders + self.large_text_encoder


class ModelSpec(_Entry):
    """One entry of models.yaml.

    backend: whether it is drawn on this machine, or over HTTP by a Hugging Face Inference Provider; provider:
    by which; timeout: seconds in which that must have given one picture.
    source: a Hub id, a folder in diffusers' layout, or a single file with a transformer's weights; paths
    are absolute once read. base: for a single file, the Hub id or folder of the pipeline that its other
    parts come from. revision: of whichever of the two is on the Hub. clean_tokens: the longest prompt, in
    tokens of the longest-reading encoder, that the model draws without artefacts; None: all that it reads.
    plan: how it is kept in memory on a GPU (devices/memory_plans.py); the fastest that fits where there is
    none.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    name: str
    about: str = ""
    family: FamilyName
    backend: Literal["local", "inference"] = "local"
    provider: Provider = "auto"
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120
    source: str
    base: str | None = None
    revision: str | None = None
    license: License
    device: Literal["cpu"] | None = None
    plan: PlanName | None = None
    needs: Needs = Needs()
    defaults: Defaults
    limits: Limits
    skip_layer_guidance: SkipLayerGuidance | None = None
    clean_tokens: Count | None = None
    preview: PreviewName | PreviewFactors | None = None

    @property
    def layout(self) -> str:
        """The pipeline in diffusers' layout that this model is, or is based on: a Hub id or a folder."""
        return self.base or self.source

    @property
    def local(self) -> bool:
        """Whether all its weights are on this machine, nothing to be downloaded."""
        return Path(self.layout).is_absolute()

    @property
    def drawn_by(self) -> str:
        """Who draws it, in words, where that isn't this machine; else empty."""
        if self.backend == "local":
            return ""
        return (
            "an Inference Provider" if self.provider == "auto" else f"the Inference Provider {self.provider}"
        )

    @model_validator(mode="after")
    def _keys_of_its_backend(self) -> ModelSpec:
        remote = self.backend == "inference"
        for key in _LOCAL_KEYS if remote else _INFERENCE_KEYS:
            if key not in self.model_fields_set:
                continue
            if remote:
                words = "goes with models that are drawn here; with `backend: inference` remove it"
            else:
                words = "goes with `backend: inference` only; remove it, or add that"
            raise _mistake(key, words)
        if remote and not _HUB_ID.fullmatch(self.source):
            raise _mistake("source", f"with `backend: inference` a Hub id (owner/name); got {self.source}")
        return self

    @model_validator(mode="after")
    def _defaults_within_limits(self) -> ModelSpec:
        defaults, limits = self.defaults, self.limits
        area = defaults.width * defaults.height
        for key, name, value, (low, high) in (
            ("defaults.steps", "steps", defaults.steps, limits.steps),
            ("defaults.guidance", "guidance", defaults.guidance, limits.guidance),
            ("defaults.width", "width", defaults.width, limits.side),
            ("defaults.height", "height", defaults.height, limits.side),
            ("defaults.width", "width × height", area, limits.pixels),
            ("limits.total_pixels", "width × height", area, (1, limits.total_pixels)),
        ):
            if not low <= value <= high:
                raise _mistake(key, f"the default {name} {value} is outside its limits [{low}, {high}]")
        for name in ("width", "height"):
            if (side := getattr(defaults, name)) % limits.multiple:
                words = f"the default {name} {side} is not a multiple of {limits.multiple}"
                raise _mistake(f"defaults.{name}", words)
        return self
