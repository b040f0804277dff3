"""The recipe inside a finished PNG, twice: as the `parameters` text that other tools read, and as our own
JSON, enough to draw the same picture again.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from pipeline import __version__
from pipeline.errors import InvalidRequest
from pipeline.parameters import parameters
from pipeline.request import GenerationRequest, Job
from pipeline.weights.profile import STOCK

_KEPT = tuple(parameter.name for parameter in parameters(but={"images", "job"}))
"""Each picture has a recipe of its own, so not how many there were."""
_OWN_WORDS = re.compile(r"(negative prompt|^[ \t]*steps)(?=:)", re.IGNORECASE | re.MULTILINE)
"""In a prompt, what readers would take for the beginning of the negative prompt, or of the settings."""
_COMPRESSION = 4
"""zlib level: a third of the time of Pillow's default of 6 on a 1024² picture, 2 % larger."""


def to_png(image: Image.Image, job: Job, index: int, made_with: dict[str, Any]) -> bytes:
    """A finished picture with its recipe.

    Args:
        index: which image of the job this is, from 0; its recipe is that one image's, seed + index.
        made_with: source, revision, device, dtype, plan, profile, patches, threads and library versions: what
            else, besides the recipe, must be the same for the same pixels. Or source and provider, who alone
            knows the rest.
    """
    recipe = {key: getattr(job, key) for key in _KEPT} | {"seed": job.seed + index}
    info = PngInfo()
    sampler = None if "provider" in made_with else "Euler"
    # tEXt where Latin-1 can hold it: Civitai and others read no other chunk. Else Pillow makes it iTXt.
    info.add_text("parameters", _parameters(recipe, sampler, _unusual(made_with)))
    info.add_itxt("stepwise", json.dumps({"version": __version__, "request": recipe, "made_with": made_with}))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info, compress_level=_COMPRESSION)
    return buffer.getvalue()


def read_recipe(png: Path | str | BinaryIO) -> GenerationRequest:
    """The request that draws this picture again.

    Raises:
        InvalidRequest: no picture, none of ours, or its recipe was tampered with. OSError: no such file.
    """
    try:
        with Image.open(png) as image:
            text = image.info.get("stepwise")
    except (UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise InvalidRequest({"picture": "This is no picture that can be read."}) from error
    if text is None:
        raise InvalidRequest({"picture": "This picture carries no Stepwise recipe."})
    try:
        request = json.loads(text)["request"]
    except (ValueError, TypeError, LookupError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise InvalidRequest({"picture": "This picture's Stepwise recipe is damaged."})
    return GenerationRequest.parse(request)


def _unusual(made_with: dict[str, Any]) -> list[tuple[int, str, Any]]:
    """Return the settings that say how this picture was drawn otherwise than usual, each with its place; none
    where it wasn't."""
    settings = []
    if made_with.get("profile", STOCK.name) != STOCK.name:
        settings.append((84, "Profile", made_with["profile"]))
    if made_with.get("patches"):  # in quotes, for what it may hold
        settings.append((86, "Patches", json.dumps(" ".join(made_with["patches"]))))
    return settings


def _parameters(recipe: dict[str, Any], sampler: str | None, unusual: list[tuple[int, str, Any]]) -> str:
    """The layout AUTOMATIC1111's web UI introduced: prompt, negative prompt, then one line of settings.

    It has no escapes. A space before the colon of a prompt's own "Negative prompt:" and "Steps:" keeps every
    reader that we know of from cutting the prompt there.
    """
    prompt, negative = (_OWN_WORDS.sub(r"\1 ", recipe[key]) for key in ("prompt", "negative_prompt"))
    lines = [prompt]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    settings = [
        (*parameter.infotext, _written(recipe[parameter.name]))
        for parameter in parameters(but={"images", "job"})
        if parameter.infotext is not None
    ]
    settings += [(20, "Sampler", sampler)] if sampler else []
    settings += [
        *unusual,
        (50, "Size", f"{recipe['width']}x{recipe['height']}"),
        (90, "Version", f"Stepwise {__version__}"),
    ]
    lines.append(", ".join(f"{name}: {value}" for _, name, value in sorted(settings)))
    return "\n".join(lines)


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
