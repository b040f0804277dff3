"""What a client of OpenAI's image API gets: the answer, the events of a stream, and the models.

Every field that OpenAI's clients know is there under its name; what is ours comes after it. The pictures'
bytes are made here, too: another format than PNG, base64, an address.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from api.openai.request import THEIRS, Format, ImageRequest, Quality
from api.pictures import QUALITY, PictureFiles, converted
from pipeline.catalog.spec import Defaults, License, Limits, ModelSpec
from pipeline.events import Event
from pipeline.parameters import MAX_SEED, parameters

Addresses = Callable[[dict[str, Any]], str]
"""The absolute address of one of PictureFiles' files, for whoever sent this request."""


class TokenDetails(BaseModel):
    """Tokens by kind; none are counted."""

    text_tokens: int = 0
    image_tokens: int = 0


class Usage(BaseModel):
    """What OpenAI bills by. Nothing is billed here and no tokens are counted: all of it is 0."""

    input_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: int = 0
    output_tokens_details: TokenDetails = TokenDetails()
    total_tokens: int = 0


OURS = parameters(but={*THEIRS, "seed", "job"})
"""The parameters that only our answers have, of the whole drawing."""
_DRAWN: dict[str, Any] = {"text": str, "whole": int, "number": float}
_drawn_fields: dict[str, Any] = {
    parameter.name: (_DRAWN[parameter.kind], Field(description=parameter.about)) for parameter in OURS
}
_Drawn: Any = create_model("_Drawn", model=(str, ...), **_drawn_fields)


class Recipe(_Drawn):
    """As it was drawn: all defaults filled in, so that the same values draw the same picture again."""

    seed: int = Field(ge=0, le=MAX_SEED, description="Of this picture; of the first one of several.")
    job: str = Field(description="The drawing's id.")
    warnings: list[str] = Field(description="What was not done as asked, such as a size snapped.")


class Picture(BaseModel):
    """One picture; `b64_json` or `url` is null."""

    b64_json: str | None = Field(default=None, description="The file, in base64.")
    url: str | None = Field(
        default=None, description="Where to fetch the file, for as long as the server keeps it."
    )
    seed: int = Field(ge=0, le=MAX_SEED)


class ImagesAnswer(Recipe):
    """The answer of POST /v1/images/generations without `stream`."""

    created: int = Field(description="Seconds since 1970.")
    data: list[Picture]
    size: str = Field(description="WIDTHxHEIGHT as drawn.")
    quality: Quality
    output_format: Format
    background: Literal["opaque"] = "opaque"
    usage: Usage = Usage()


class _Streamed(BaseModel):
    b64_json: str = Field(description="The picture, in base64.")
    created_at: int = Field(description="Seconds since 1970.")
    size: str = Field(description="WIDTHxHEIGHT of the finished picture.")
    quality: Quality
    background: Literal["opaque"] = "opaque"
    image_index: int = Field(ge=0, description="Which picture of several.")


class PartialImage(_Streamed):
    """A preview: what the model believes the picture will be. A JPEG of at most 384 pixels a side."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    output_format: Literal["jpeg"] = "jpeg"
    partial_image_index: int = Field(ge=0, description="Which preview of this picture.")
    step: int = Field(ge=0, description="Denoising steps done.")
    steps: int = Field(ge=1)
    seed: int = Field(ge=0, le=MAX_SEED)
    job: str
    eta: float | None = Field(description="Seconds left, where that is known.")


class CompletedImage(_Streamed, Recipe):
    """A finished picture."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    output_format: Format
    usage: Usage = Usage()


class ModelCard(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Always 0: when a model was made isn't known here.")
    owned_by: str = Field(description="Whose repository it is from; `stepwise` where it comes along.")
    name: str
    family: str
    license: License
    default: bool = Field(description="Whether it is drawn with where no model is named.")
    available: bool = Field(description="Whether it can run here.")
    reason: str | None = Field(description="Why it can't.")
    defaults: Defaults
    limits: Limits


class ModelList(BaseModel):
    """Every model, those that can run here first."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


def card(spec: ModelSpec, model: dict[str, Any]) -> ModelCard:
    """model: this spec's entry of `Engine.models`."""
    owner = "stepwise" if spec.local else spec.source.partition("/")[0]
    return ModelCard(**model, owned_by=owner)


def answer(event: Event, asked: ImageRequest, files: PictureFiles, address: Addresses) -> ImagesAnswer:
    """The whole answer. Takes its time where pictures are converted: not for an event loop.

    Args:
        event: a drawing's last, with its pictures.
    """
    pictures = []
    for index, png in enumerate(event.images):
        seed = event.job.seed + index
        if asked.response_format == "url":
            name = f"{seed}.{asked.output_format or 'png'}"
            url = address(files.file(event.job, png, name, asked.output_compression))
            pictures.append(Picture(url=url, seed=seed))
        else:
            pictures.append(Picture(b64_json=_base64(encoded(png, asked)), seed=seed))
    return ImagesAnswer(
        **_recipe(event, 0),
        created=int(time.time()),
        data=pictures,
        size=_dimensions(event),
        quality=asked.drawn_quality,
        output_format=asked.output_format or "png",
    )


def partial_image(event: Event, preview: bytes, index: int, number: int, asked: ImageRequest) -> PartialImage:
    """index: which picture, from 0; number: which of its previews, from 0."""
    return PartialImage(
        **_streamed(event, preview, index, asked),
        partial_image_index=number,
        step=event.step,
        steps=event.steps,
        seed=event.job.seed + index,
        job=event.job.id,
        eta=None if event.eta is None else round(event.eta, 2),
    )


def completed_image(event: Event, index: int, asked: ImageRequest) -> CompletedImage:
    """Takes its time where the picture is converted: not for an event loop."""
    return CompletedImage(
        **_streamed(event, encoded(event.images[index], asked), index, asked),
        **_recipe(event, index),
        output_format=asked.output_format or "png",
    )


def encoded(png: bytes, asked: ImageRequest) -> bytes:
    """A finished picture in the format asked for; as a PNG, the very file with its recipe."""
    kind = asked.output_format or "png"
    if kind == "png":
        return png
    return converted(png, kind, QUALITY if asked.output_compression is None else asked.output_compression)


def _recipe(event: Event, index: int) -> dict[str, Any]:
    job = event.job
    return {parameter.name: getattr(job, parameter.name) for parameter in OURS} | {
        "model": job.model,
        "seed": job.seed + index,
        "job": job.id,
        "warnings": list(event.warnings),
    }


def _streamed(event: Event, picture: bytes, index: int, asked: ImageRequest) -> dict[str, Any]:
    return {
        "b64_json": _base64(picture),
        "created_at": int(time.time()),
        "size": _dimensions(event),
        "quality": asked.drawn_quality,
        "image_index": index,
    }


def _dimensions(event: Event) -> str:
    return f"{event.job.width}x{event.job.height}"


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()
