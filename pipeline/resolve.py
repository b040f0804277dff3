"""From a request to a job: what a client left out gets the model's default, every value is checked against
the model's limits, and what won't be done as asked is said in a warning.
"""

from __future__ import annotations

import random
import uuid
from typing import Any

from pipeline.catalog.catalogue import Catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.errors import InvalidRequest, quoted
from pipeline.families import FAMILIES
from pipeline.families.prompt_syntax import syntax_warnings
from pipeline.parameters import MAX_SEED, PARAMETERS, SPECIAL, Task, parameters
from pipeline.request import GenerationRequest, Job

RANDOM_SEEDS = 2**32
TASK: Task = "text-to-image"
"""What a request is whose only input is a prompt."""


def resolve(request: GenerationRequest, catalogue: Catalogue, default_model: str) -> Job:
    """Makes the job that this request means.

    Raises:
        InvalidRequest: a value outside the model's limits (UnknownModel where there is no such model).
    """
    spec = catalogue[request.model if request.model is not None else default_model]
    limits = spec.limits
    warnings: list[str] = []

    _of_the_task(request)
    values = {one.name: _bounded(spec, one.name, request) for one in parameters(but=SPECIAL)}
    images = _bounded(spec, "images", request)
    width, height = _size(spec, request, warnings)
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
    guidance = values["guidance"]
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
        seed=seed,
        images=images,
        warnings=tuple(warnings),
        **values,
    )


def _of_the_task(request: GenerationRequest) -> None:
    problems = {
        one.name: f"{one.name} means nothing in {TASK}: leave it out."
        for one in parameters()
        if TASK not in one.tasks and getattr(request, one.name) is not None
    }
    if problems:
        raise InvalidRequest(problems)


def _bounded(spec: ModelSpec, name: str, request: GenerationRequest) -> Any:
    """A parameter's value, or its default where the request says nothing, if it is within its bounds."""
    parameter, value = PARAMETERS[name], getattr(request, name)
    value = parameter.default_of(dict(spec.defaults)) if value is None else value
    if bounds := parameter.bounds_of(dict(spec.limits)):
        _within(spec, name, value, bounds)
    return value


def _within(spec: ModelSpec, name: str, value: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low <= value <= high:
        problem = f"{name} must be from {low:g} to {high:g} for {spec.name}; got {quoted(value)}."
        raise InvalidRequest({name: problem})


def _size(spec: ModelSpec, request: GenerationRequest, warnings: list[str]) -> tuple[int, int]:
    limits = spec.limits
    asked = (_bounded(spec, "width", request), _bounded(spec, "height", request))
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
