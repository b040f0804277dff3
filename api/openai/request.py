"""What a client of OpenAI's image API may send, and the request of ours that it means.

Bounds that differ between models aren't known here: the engine checks them, as for every other client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from pipeline.catalog.catalogue import Catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.errors import InvalidRequest, quoted
from pipeline.parameters import MAX_PROMPT, MAX_SEED, PARAMETERS, Parameter, instead, parameters
from pipeline.request import VALUES, Prompt

MOST_PARTIALS = 3
"""That OpenAI's clients allow; ours may be as many as a model's steps."""
STEPS = {"low": 0.5, "medium": 1.0, "high": 1.5, "xhigh": 1.5, "max": 1.5}
"""Times a model's default steps that a quality is drawn with."""
OLD_QUALITIES = {"auto": "medium", "standard": "medium", "hd": "high"}
"""As they are answered: OpenAI's answer knows the others only."""
OPENAIS_MODEL = r"(openai/)?(gpt-image|chatgpt-image|dall-?e)[a-z0-9.-]*"
"""Names of OpenAI's own models that draw, which programs made for them send unasked: LibreChat, Open WebUI,
LangChain and others. gpt-image-1, gpt-image-2.5-flare, chatgpt-image-latest, dall-e-3, …"""
SIZE = r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})"

Quality = Literal["low", "medium", "high", "xhigh", "max"]
Format = Literal["png", "jpeg", "webp"]


def _size(value: Any) -> Any:
    if value is None or (isinstance(value, str) and (value == "auto" or re.fullmatch(SIZE, value))):
        return value
    raise _refusal(f'must be WIDTHxHEIGHT in pixels, such as "512x512", or "auto"; got {quoted(value)}')


def _opaque(value: Any) -> Any:
    if value == "transparent":
        raise _refusal('must be "opaque" or "auto": these models draw opaque pictures; got "transparent"')
    return value


def _refusal(words: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{words}", {"words": words})


Text: Any = VALUES["text"]
Whole: Any = VALUES["whole"]

THEIRS = {"prompt": "prompt", "model": "model", "images": "n", "width": "size", "height": "size"}
"""What OpenAI's API calls those of our parameters that it has, too. The others are ours."""


class _TheirBody(BaseModel):
    """OpenAI's own parameters."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "examples": [
                {"prompt": "a red apple"},
                {"prompt": "a fox on a blue background", "size": "256x256", "quality": "low", "seed": 7},
                {"prompt": 'a sign that says "OPEN"', "stream": True, "partial_images": 3},
            ]
        },
    )

    prompt: Prompt = Field(
        description=PARAMETERS["prompt"].about,
        json_schema_extra={"minLength": 1, "maxLength": MAX_PROMPT, "pattern": r"\S"},
    )
    model: Text = Field(
        None,
        description="A model's id, see /v1/models. The best that can run where null, and, with a warning, "
        "where it is one of OpenAI's that draw.",
    )
    n: Whole = Field(None, description="How many pictures; picture k is drawn from seed + k. One where null.")
    size: Annotated[str | None, BeforeValidator(_size)] = Field(
        None,
        description="WIDTHxHEIGHT in pixels, snapped to the model's multiple, with a warning; the model's "
        "default where `auto` or null.",
        json_schema_extra={"pattern": f"^(auto|{SIZE})$"},
    )
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = Field(
        None,
        description="How many steps, where `steps` doesn't say it: medium (auto, standard) the model's "
        "default, low half of them, high (hd, xhigh, max) one and a half times as many, within its limits.",
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="Pictures in the answer, or addresses to fetch them from. b64_json where null."
    )
    output_format: Format | None = Field(
        None, description="png where null; only a PNG carries its recipe: prompt, model, settings and seed."
    )
    output_compression: Whole = Field(
        None,
        description="Quality of a jpeg or webp, 100 the best. 100 where null.",
        json_schema_extra={"minimum": 0, "maximum": 100},
    )
    background: Annotated[Literal["auto", "opaque"] | None, BeforeValidator(_opaque)] = Field(
        None, description="These models draw opaque pictures."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events.")
    partial_images: Whole = Field(
        None,
        description="Previews to stream of each picture, spread over its steps; fewer come where drawing is "
        "fast. Read only with `stream`. None where null.",
        json_schema_extra={"minimum": 0},
    )
    moderation: Literal["auto", "low"] | None = Field(
        None, description="Has no effect: nothing is moderated."
    )
    style: Literal["vivid", "natural"] | None = Field(None, description="Has no effect.")
    user: Text = Field(None, description="Has no effect, and isn't stored.")
    safety_identifier: Text = Field(None, description="Has no effect, and isn't stored.")


OURS = parameters(but=THEIRS)
"""The parameters that OpenAI's API hasn't."""


def _field(parameter: Parameter) -> tuple[Any, Any]:
    null = "Null: what `quality` says." if parameter.name == "steps" else parameter.null
    more: dict[str, Any] = {"minimum": -1, "maximum": MAX_SEED} if parameter.kind == "seed" else {}
    if parameter.kind == "id":
        more = {"format": "uuid"}
    words = f"{parameter.about} {null} Not an OpenAI parameter."
    return VALUES[parameter.kind], Field(None, description=words, json_schema_extra=more)


_our_fields: dict[str, Any] = {parameter.name: _field(parameter) for parameter in OURS}
_Body: Any = create_model("_Body", __base__=_TheirBody, **_our_fields)


class ImageRequest(_Body):
    """The body of POST /v1/images/generations. Only `prompt` is required; null means the default."""

    if TYPE_CHECKING:  # those that the code names
        model: str | None
        size: str | None
        quality: str | None
        output_format: Format | None
        output_compression: int | None
        partial_images: int | None

    def names_openais(self, catalogue: Catalogue) -> bool:
        """Whether it asks for a model of OpenAI's, which isn't here."""
        return re.fullmatch(OPENAIS_MODEL, self.model or "") is not None and all(
            spec.id != self.model for spec in catalogue
        )

    @property
    def drawn_quality(self) -> Quality:
        """As the answer names it."""
        quality: Any = OLD_QUALITIES.get(self.quality or "auto", self.quality)
        return quality

    def values(self, spec: ModelSpec) -> dict[str, Any]:
        """The parameters of `Engine.check` that this means.

        Args:
            spec: the model's that it names, or of the default one.

        Raises:
            InvalidRequest: parameters that don't go together, or not with this model.
        """
        self._check(spec)
        low, high = spec.limits.steps
        steps = round(spec.defaults.steps * STEPS[self.drawn_quality])
        size = re.fullmatch(SIZE, self.size or "")
        width, height = (int(size[1]), int(size[2])) if size else (None, None)
        ours = {parameter.name: getattr(self, parameter.name) for parameter in OURS}
        return ours | {
            "prompt": self.prompt,
            "model": spec.id,
            "width": width,
            "height": height,
            "steps": min(max(steps, low), high) if self.steps is None else self.steps,
            "images": self.n,
        }

    def _check(self, spec: ModelSpec) -> None:
        problems = {}
        most = max(MOST_PARTIALS, spec.limits.steps[1])
        if not 0 <= (self.partial_images or 0) <= most:
            problems["partial_images"] = (
                f"partial_images must be from 0 to {most} for {spec.name}; got {quoted(self.partial_images)}."
            )
        compression = 100 if self.output_compression is None else self.output_compression
        if not 0 <= compression <= 100:
            problems["output_compression"] = (
                f"output_compression must be from 0 to 100; got {quoted(compression)}."
            )
        elif compression < 100 and (self.output_format or "png") == "png":
            problems["output_compression"] = (
                "output_compression is for output_format jpeg and webp: a png loses nothing. Leave it out."
            )
        if self.stream and self.response_format == "url":
            problems["response_format"] = (
                "response_format must be b64_json with stream: the events hold the pictures themselves."
            )
        if problems:
            raise InvalidRequest(problems)


NAMES = {name: name for name in ImageRequest.model_fields} | {
    "images": "n",
    "width": 'size, "WIDTHxHEIGHT",',
    "height": 'size, "WIDTHxHEIGHT",',
}
"""What `instead` may say to a client."""


def problems_of(error: RequestValidationError, content_type: str | None) -> dict[str, str]:
    """What is wrong with a body, by the parameter's name, in the words that `InvalidRequest` takes."""
    problems: dict[str, str] = {}
    for one in error.errors():
        name = quoted(str(one["loc"][1]))[1:-1] if len(one["loc"]) > 1 else ""
        if one["type"] == "json_invalid":
            return {"": f"The body is not JSON: {one['ctx']['error']}, at character {one['loc'][1]}."}
        if not name:
            return {"": _no_object(content_type, one)}
        hint = instead(name, NAMES) if one["type"] == "extra_forbidden" else ""
        problems.setdefault(name, f"{name} {_words(one)}.{hint}")
    return problems


def _no_object(content_type: str | None, error: Mapping[str, Any]) -> str:
    if isinstance(error.get("input"), bytes):
        got = quoted(content_type) if content_type else "none"
        return f'Send JSON, with the header "Content-Type: application/json"; got {got}.'
    return 'The body must be a JSON object, such as {"prompt": "a red apple"}.'


def _words(error: Mapping[str, Any]) -> str:
    kind, got = error["type"], quoted(error.get("input"))
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return f"is not a parameter; the parameters are {', '.join(ImageRequest.model_fields)}"
    if kind == "literal_error":
        return f"must be one of {error['ctx']['expected'].replace(chr(39), chr(34))}; got {got}"
    if kind == "bool_type":
        return f"must be true or false; got {got}"
    if kind == "refused":
        return error["msg"]
    return f"can't be read; got {got}"
