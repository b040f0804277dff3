"""What the settings are for each model: bounds, defaults, presets, and the words under the dropdown.

Made once from /models, for every model: the browser switches between them without asking the server.
"""

from __future__ import annotations

import html
import math
from typing import Any

ASPECTS = {"1:1": (1, 1), "3:2": (3, 2), "2:3": (2, 3), "16:9": (16, 9), "9:16": (9, 16)}


def controls(model: dict[str, Any], guidance_off: float, about: str) -> dict[str, dict[str, Any]]:
    """For each setting by name: its value and properties for this model.

    Args:
        model: one of /models.
        guidance_off: guidance up to which the model ignores a negative prompt.
    """
    limits, defaults = model["limits"], model["defaults"]

    def bounded(name: str, bounds: list[float], step: float) -> dict[str, Any]:
        return {"value": defaults[name], "minimum": bounds[0], "maximum": bounds[1], "step": step}

    return {
        "about": {"value": _about(model, about)},
        "aspect": {"value": aspect_of(defaults["width"], defaults["height"])},
        "width": bounded("width", limits["side"], limits["multiple"]),
        "height": bounded("height", limits["side"], limits["multiple"]),
        "steps": bounded("steps", limits["steps"], 1),
        "guidance": bounded("guidance", limits["guidance"], 0.1),
        "images": {"value": 1, "minimum": limits["images"][0], "maximum": limits["images"][1]},
        "negative_prompt": {"visible": defaults["guidance"] > guidance_off},
    }


def sizes(model: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """For each aspect preset the (width, height) in pixels that has about the default's area, within the
    model's limits."""
    limits, defaults = model["limits"], model["defaults"]
    area = defaults["width"] * defaults["height"]
    return {name: _fit(ratio, area, limits) for name, ratio in ASPECTS.items()}


def _fit(ratio: tuple[int, int], area: int, limits: dict[str, Any]) -> tuple[int, int]:
    multiple, (low, high) = limits["multiple"], limits["side"]
    width = math.sqrt(area * ratio[0] / ratio[1])
    sides = [
        min(max(round(side / multiple) * multiple, low), high)
        for side in (width, width * ratio[1] / ratio[0])
    ]
    while sides[0] * sides[1] > limits["pixels"][1]:
        sides[sides.index(max(sides))] -= multiple
    return sides[0], sides[1]


def aspect_of(width: int, height: int) -> str | None:
    """The preset that this size is exactly; None for any other."""
    return next((name for name, (w, h) in ASPECTS.items() if width * h == height * w), None)


def _about(model: dict[str, Any], about: str) -> str:
    """The words under the dropdown: what the model is, its licence, and why it can't run here."""
    license = model["license"]
    parts = [html.escape(about)] if about else []
    parts.append(f"Licence: {link(license['url'], license['name'])}.")
    if license["notice"]:
        parts.append(f"{html.escape(license['notice'])}.")
    if license["policy"]:
        parts.append(f"{link(license['policy'], 'Acceptable use')}.")
    words = f"<p>{' '.join(parts)}</p>"
    if not model["available"]:
        words += f'<p class="missing"><strong>Can’t run here.</strong> {linked(model["reason"])}</p>'
    return words


def link(url: str, words: str) -> str:
    """An anchor that opens beside the page."""
    return f'<a href="{html.escape(url)}" target="_blank" rel="noopener">{html.escape(words)}</a>'


def linked(text: str) -> str:
    """Text as HTML, with its addresses as links."""
    return " ".join(
        link(word, "Where to get it") if word.startswith("https://") else html.escape(word)
        for word in text.split(" ")
    )
