"""What the settings are for each model: bounds, defaults, presets, and the words under the dropdown.

Made once from /models, for every model: the browser switches between them without asking the server.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

import gradio as gr

from api.gradio.patches import pass_value_through
from pipeline.devices.memory_plans import RESIDENT
from pipeline.parameters import PARAMETERS, SPECIAL, parameters

if TYPE_CHECKING:
    from pipeline.catalog.spec import ModelSpec
    from pipeline.devices.memory_plans import Plan
    from pipeline.weights.requirements import Requirement

SLIDERS = tuple(parameter.name for parameter in parameters(but=SPECIAL))
"""The parameters that are nothing but a slider."""
ASPECTS = {"1:1": (1, 1), "3:2": (3, 2), "2:3": (2, 3), "16:9": (16, 9), "9:16": (9, 16)}
MUCH_MORE = 1.5
"""A model that can draw so many times its usual area has presets for its largest one, too."""
LINKS = {
    "hardware": "Where to get it",
    "token": "Make a token",
    "licence": "Its licence",
    "disk": "More disk",
}
"""What the link behind each kind of need is called."""


def model_slider(name: str, **bounds: Any) -> gr.Slider:
    """A parameter's slider, whose bounds are the chosen model's. The browser changes them without asking the
    server, which would go on comparing with those of the first model (Gradio 6.31): it passes the value on,
    and the engine checks it. Without Gradio's reset button, which goes back to the first model's value."""
    slider = gr.Slider(label=PARAMETERS[name].label, elem_id=name, buttons=[], **bounds)
    pass_value_through(slider)
    return slider


def controls(
    model: dict[str, Any], negative_read: bool, about: str, needs: list[Requirement]
) -> dict[str, dict[str, Any]]:
    """For each setting by name: its value and properties for this model.

    Args:
        model: one of /models.
        negative_read: whether the model reads a negative prompt with its default settings.
        about: the model in one sentence.
        needs: what the model needs of this machine.
    """
    limits, defaults, areas = model["limits"], model["defaults"], list(sizes(model))

    def bounded(name: str) -> dict[str, Any]:
        parameter = PARAMETERS[name]
        low, high = parameter.bounds_of(limits) or (None, None)
        value, step = parameter.default_of(defaults), parameter.increment
        return {"value": value, "minimum": low, "maximum": high, "step": step}

    return {
        "about": {"value": _about(model, about, needs)},
        "aspect": {"value": aspect_of(defaults["width"], defaults["height"])},
        "area": {"choices": [(name, name) for name in areas], "value": areas[0], "visible": len(areas) > 1},
        "width": bounded("width") | {"step": limits["multiple"]},
        "height": bounded("height") | {"step": limits["multiple"]},
        **{name: bounded(name) for name in SLIDERS},
        "images": bounded("images"),
        "negative_prompt": {"visible": negative_read},
    }


def summary(spec: ModelSpec, plan: Plan | None) -> str:
    """The model in a sentence, how a small GPU holds it, where the prompt goes if it leaves this machine."""
    if not spec.drawn_by:
        if plan is None or plan is RESIDENT:
            return spec.about
        return f"{spec.about} Here with {plan.words}.".strip()
    return f"{spec.about} Drawn by {spec.drawn_by}, which is sent the prompt; without previews.".strip()


def choices(models: dict[str, Any]) -> list[tuple[str, str]]:
    """The models of the dropdown as (what it says, id)."""
    return [
        (model["name"] if model["available"] else f"{model['name']} (can’t run here)", name)
        for name, model in models.items()
    ]


def sizes(model: dict[str, Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """The presets' (width, height) in pixels, by area and aspect: with about the default's area and, where
    the model's limits allow much more, with the most. An area is called by the side of its square: 1024²."""
    limits, defaults = model["limits"], model["defaults"]
    usual, most = defaults["width"] * defaults["height"], limits["pixels"][1]
    areas = [usual, most] if most >= MUCH_MORE * usual else [usual]
    return {
        f"{math.sqrt(area):.0f}²": {name: _fit(ratio, area, limits) for name, ratio in ASPECTS.items()}
        for area in areas
    }


def _fit(ratio: tuple[int, int], area: int, limits: dict[str, Any]) -> tuple[int, int]:
    """The sides of this ratio whose product is next to the area, as far as no side leaves its limits."""
    multiple, (low, high) = limits["multiple"], limits["side"]
    shape = ratio[0] / ratio[1]
    width = min(math.sqrt(area * shape), high, high * shape)
    sides = [max(round(side / multiple) * multiple, low) for side in (width, width / shape)]
    while max(sides) > high or sides[0] * sides[1] > limits["pixels"][1]:
        sides[sides.index(max(sides))] -= multiple
    return sides[0], sides[1]


def aspect_of(width: int, height: int) -> str | None:
    """The preset that this size is exactly; None for any other."""
    return next((name for name, (w, h) in ASPECTS.items() if width * h == height * w), None)


def _about(model: dict[str, Any], about: str, needs: list[Requirement]) -> str:
    """The words under the dropdown: what the model is, its licence, and why it can't run here."""
    license = model["license"]
    parts = [html.escape(about)] if about else []
    parts.append(f"Licence: {link(license['url'], license['name'])}.")
    if license["notice"]:
        parts.append(f"{html.escape(license['notice'])}.")
    if license["policy"]:
        parts.append(f"{link(license['policy'], 'Acceptable use')}.")
    words = f"<p>{' '.join(parts)}</p>"
    if missing := [f"<li>{need_words(need)}</li>" for need in needs if not need.met]:
        words += f'<div class="missing"><strong>Can’t run here</strong><ul>{"".join(missing)}</ul></div>'
    return words


def need_words(need: Requirement) -> str:
    """A need as HTML, with its link."""
    source = f" {link(need.url, LINKS[need.what])}" if need.url else ""
    return html.escape(need.words) + source


def link(url: str, words: str) -> str:
    """An anchor that opens beside the page."""
    return f'<a href="{html.escape(url)}" target="_blank" rel="noopener">{html.escape(words)}</a>'
