"""What a client may ask for, and what it becomes.

A `GenerationRequest` is validated on its own; null means "the model's default". `resolve` turns it into
a `Job` against one model's spec: no nulls left, seed chosen, size snapped or refused. A job is plain
data: it pickles, goes to JSON and back, and drawn again gives the same picture.
"""

from __future__ import annotations

import math
import random
import re
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from pipeline.catalog.catalogue import Catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.errors import InvalidRequest, quoted
from pipeline.families import FAMILIES
from pipeline.families.prompt_syntax import syntax_warnings
from pipeline.parameter_names import instead

MAX_SEED = 2**53 - 1
"""The largest integer that JavaScript's numbers carry exactly."""
RANDOM_SEEDS = 2**32
MAX_PROMPT = 10_000
"""Characters. Far more than any text encoder reads (SD3.5: 512 tokens), so nothing sensible is refused."""
LONGEST_ID = 64
"""Characters of a job's id as a client writes it: 47 as URN in braces."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _refuse(words: str) -> NoReturn:
    raise PydanticCustomError("refused", "{words}", {"words": words})


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        _refuse(f"must be text; got {quoted(value)}")
    if len(value) > MAX_PROMPT:
        _refuse(f"may be at most {MAX_PROMPT:,} characters long; got {len(value):,}")
    if bad := _UNPRINTABLE.search(value):
        _refuse(
            f"contains the character U+{ord(bad[0]):04X} at position {bad.start()}, which is not text; "
            "remove it"
        )
    return value.strip()


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"must be a number; got {quoted(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(f"must be a finite number; got {quoted(value)}")
    if abs(value) > 1e9:
        _refuse(f"must be a number of ordinary size; got {quoted(value)}")
    return float(value)


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"must be a whole number; got {quoted(value)}")
    if isinstance(value, float) and not value.is_integer():
        _refuse(f"must be a whole number; got {quoted(value)}")
    return int(value)


def _seed(value: Any) -> int | None:
    seed = _whole(value)
    if seed == -1:
        return None
    if not 0 <= seed <= MAX_SEED:
        _refuse(f"must be from 0 to {MAX_SEED} (2⁵³ − 1), or -1 for a random one; got {quoted(value)}")
    return seed


def job_id(value: Any) -> str:
    """A job's id as the job has it, however a client wrote it.

    Raises:
        ValueError: no job can have it.
    """
    # uuid.UUID itself leaves out any number of dashes.
    if not isinstance(value, str) or len(value) > LONGEST_ID:
        raise ValueError
    return str(uuid.UUID(value))


def _id(value: Any) -> str:
    try:
        return job_id(value)
    except ValueError:
        _refuse(f"must be a UUID such as {uuid.UUID(int=0)}; got {quoted(value)}")


def _or_none(check):
    return BeforeValidator(lambda value: None if value is None else check(value))


# What a value may be, each refused in words: other descriptions of a request are made of the same.
Prompt = Annotated[str, BeforeValidator(_text)]
Text = Annotated[str | None, _or_none(_text)]
Number = Annotated[float | None, _or_none(_number)]
Whole = Annotated[int | None, _or_none(_whole)]
Seed = Annotated[int | None, _or_none(_seed)]
JobId = Annotated[str | None, _or_none(_id)]


class GenerationRequest(BaseModel):
    """What a client sent. Only `prompt` is required; null means the model's default.

    Sizes in pixels; seed 0 to 2⁵³ − 1, null or -1 for a random one; job: the client's own UUID, or null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt
    model: Text = None
    negative_prompt: Text = None
    width: Whole = None
    height: Whole = None
    steps: Whole = None
    guidance: Number = None
    seed: Seed = None
    images: Whole = None
    job: JobId = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> GenerationRequest:
        """Checks everything that can be checked without a model.

        Raises:
            InvalidRequest: every complaint, each naming its parameter, value and bound.
        """
        try:
            request = cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidRequest(dict(_problem(one) for one in error.errors())) from None
        if not request.prompt:
            raise InvalidRequest({"prompt": "prompt is empty: write what to draw."})
        return request


NAMES = {name: name for name in GenerationRequest.model_fields} | {"size": "width and height"}
"""What `instead` may say to a client of /generate."""


def _problem(error: Any) -> tuple[str, str]:
    name = quoted(str(error["loc"][0]))[1:-1]
    if error["type"] == "extra_forbidden":
        known = ", ".join(GenerationRequest.model_fields)
        return name, f"{name} is not a parameter; the parameters are {known}.{instead(name, NAMES)}"
    return name, f"{name} {'is required' if error['type'] == 'missing' else error['msg']}."


SHORTEST = 4
"""Characters of a prompt that is taken out of a log: a shorter one is part of too many words."""


class Job(BaseModel):
    """A request resolved against a model's spec: plain data that says all that determines the pictures.

    Image k (from 0) is drawn from seed + k.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    model: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    images: int = Field(ge=1)
    warnings: tuple[str, ...] = ()

    @property
    def short_id(self) -> str:
        """As much of the id as tells jobs apart in a log: whoever knows all of it can stop the job."""
        return self.id[:8]

    def without_prompts(self, text: str) -> str:
        """A text for the log, such as a library's exception, with the job's own texts taken out."""
        for prompt in (self.prompt, self.negative_prompt):
            if len(prompt) >= SHORTEST:
                text = text.replace(prompt, "…").replace(repr(prompt)[1:-1], "…")
        return text


def resolve(request: GenerationRequest, catalogue: Catalogue, default_model: str) -> Job:
    """Makes the job that this request means.

    Raises:
        InvalidRequest: a value outside the model's limits (UnknownModel where there is no such model).
    """
    spec = catalogue[request.model if request.model is not None else default_model]
    limits, defaults = spec.limits, spec.defaults
    warnings: list[str] = []

    steps = defaults.steps if request.steps is None else request.steps
    guidance = defaults.guidance if request.guidance is None else request.guidance
    images = 1 if request.images is None else request.images
    _within(spec, "steps", steps, limits.steps)
    _within(spec, "guidance", guidance, limits.guidance)
    _within(spec, "images", images, limits.images)
    width, height = _size(spec, request.width, request.height, warnings)
    if width * height * images > limits.total_pixels:
        asked = f"{width} × {height} × {images} = {width * height * images:,}"
        raise InvalidRequest(
            {
                "images": f"width × height × images is {asked} pixels; {spec.name} draws at most "
                f"{limits.total_pixels:,} in one job: ask for fewer images or a smaller size."
            }
        )

    seed = random.SystemRandom().randrange(RANDOM_SEEDS) if request.seed is None else request.seed
    if seed + images - 1 > MAX_SEED:
        problem = f"seed {seed} leaves no room for {images} images below 2⁵³; choose a smaller seed."
        raise InvalidRequest({"seed": problem})

    negative_prompt = request.negative_prompt or ""
    off = FAMILIES[spec.family].guidance_threshold
    negative_read = guidance > off
    if negative_prompt and not negative_read:
        warnings.append(
            f"The negative prompt does nothing at guidance {guidance:g}: {spec.name} reads it above {off:g}."
        )
    if spec.drawn_by:  # how a provider reads a prompt is its own affair
        warnings.append(f"No previews: {spec.name} is drawn by {spec.drawn_by}, whose steps can't be seen.")
    else:
        warnings += syntax_warnings("prompt", request.prompt)
        warnings += syntax_warnings("negative prompt", negative_prompt) if negative_read else []
    return Job(
        id=request.job or str(uuid.uuid4()),
        model=spec.id,
        prompt=request.prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        seed=seed,
        images=images,
        warnings=tuple(warnings),
    )


def _within(spec: ModelSpec, name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:
        problem = f"{name} must be from {low:g} to {high:g} for {spec.name}; got {quoted(value)}."
        raise InvalidRequest({name: problem})


def _size(spec: ModelSpec, width: int | None, height: int | None, warnings: list[str]) -> tuple[int, int]:
    limits = spec.limits
    asked = (
        spec.defaults.width if width is None else width,
        spec.defaults.height if height is None else height,
    )
    for name, side in zip(("width", "height"), asked, strict=True):
        _within(spec, name, side, limits.side)
    snapped = tuple(_snap(side, limits) for side in asked)
    if snapped != asked:
        warnings.append(
            f"Drawn at {snapped[0]} × {snapped[1]} instead of {asked[0]} × {asked[1]}: "
            f"{spec.name} draws multiples of {limits.multiple}."
        )
    low, high = limits.pixels
    if not low <= snapped[0] * snapped[1] <= high:
        asked_area = f"{snapped[0]} × {snapped[1]} = {snapped[0] * snapped[1]:,}"
        problem = f"width × height is {asked_area} pixels; {spec.name} draws from {low:,} to {high:,}."
        raise InvalidRequest({"width": problem})
    return snapped[0], snapped[1]


def _snap(side: int, limits) -> int:
    """The nearest multiple that the limits allow."""
    low, high = limits.side
    nearest = round(side / limits.multiple) * limits.multiple
    if nearest > high:
        nearest -= limits.multiple
    return nearest + limits.multiple if nearest < low else nearest
