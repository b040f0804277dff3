"""The two tools as a language model reads them: names, descriptions, and what their parameters may be.

They are made from the catalogue each time a client asks, so that they name the models that can run here.
What the tools do stands in server.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mcp.types import Tool, ToolAnnotations

from pipeline.catalog.spec import ModelSpec
from pipeline.families import FAMILIES, Family
from pipeline.parameters import MAX_PROMPT, SPECIAL, Kind, Parameter, parameters

if TYPE_CHECKING:
    from pipeline.engine import Engine

TAKEN = parameters(but={"images", "job"})
"""What `draw` takes: one picture a call, so no `images`; and MCP has its own way to stop, so no `job`."""
TYPES: dict[Kind, str] = {"text": "string", "whole": "integer", "number": "number", "seed": "integer"}
"""JSON Schema's name for each kind."""

INSTRUCTIONS = (
    "Stepwise draws pictures from words. Call `draw` with a prompt; the other parameters have good defaults. "
    "Call `list_models` only to choose between models or to learn their bounds."
)
DRAW = """Draws one picture from a description in words. Returns the picture itself and, as JSON, how it was \
drawn (model, seed, size, all settings, warnings) and `png`, the address of the finished file: give it to \
the user, to download.

Use it when somebody wants a picture made. Leave out every parameter that you have no reason to set. For \
another picture of the same kind, call it again without a seed; to change a picture, call it again with the \
same seed, model and size and another prompt. For several pictures, call it several times. It takes from \
seconds to minutes, and reports each step."""
LIST_MODELS = """Lists the models that `draw` knows: for each its id, name, licence, defaults and limits, \
whether it can run here and, if not, the reason and the remedy. `draw` without a model uses the one marked \
as the default."""

LISTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string", "description": "What draw's `model` takes."},
                    "name": {"type": "string"},
                    "default": {"type": "boolean", "description": "Drawn with where no model is named."},
                    "available": {"type": "boolean", "description": "Whether it can run here."},
                    "reason": {"type": ["string", "null"], "description": "Why it can't, and the remedy."},
                    "defaults": {"type": "object", "description": "What draw uses where it is told nothing."},
                    "limits": {"type": "object", "description": "Each [min, max], both allowed."},
                },
                "required": ["id", "name", "default", "available", "reason", "defaults", "limits"],
            },
        }
    },
    "required": ["models"],
}


def tools(engine: Engine) -> list[Tool]:
    """Both tools, as they stand now."""
    return [
        Tool(
            name="draw",
            title="Draw a picture",
            description=DRAW,
            inputSchema=_draw_schema(engine),
            # Each call makes one more picture, at random unless a seed is given, and changes none.
            annotations=ToolAnnotations(
                readOnlyHint=False, destructiveHint=False, idempotentHint=False, openWorldHint=False
            ),
        ),
        Tool(
            name="list_models",
            title="List the models",
            description=LIST_MODELS,
            inputSchema={"type": "object", "properties": {}, "additionalProperties": False},
            outputSchema=LISTED,
            annotations=ToolAnnotations(readOnlyHint=True, openWorldHint=False),
        ),
    ]


def _draw_schema(engine: Engine) -> dict[str, Any]:
    """draw's parameters. A number's bounds are the widest of the models that can run here; what each of
    them takes stands with `model`, and is checked when it is called."""
    specs = [spec for spec in engine.catalogue if not engine.reason(spec)] or list(engine.catalogue)

    limits = [dict(spec.limits) for spec in specs]
    properties = {parameter.name: _schema(parameter, limits) for parameter in TAKEN}
    languages = _by_family(specs, lambda family: family.languages)
    threshold = _by_family(specs, lambda family: f"above {family.guidance_threshold:g}")
    models = "\n".join(f"- {_in_words(spec)}" for spec in specs)
    properties["prompt"]["description"] += f" In {languages}."
    properties["negative_prompt"]["description"] += f" Guidance is on {threshold}."
    properties["model"] |= {
        "enum": [spec.id for spec in specs],
        "description": f"Which model draws. Left out: {engine.default_model}.\n{models}",
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in TAKEN if parameter.required],
        "additionalProperties": False,
    }


def _schema(parameter: Parameter, limits: list[dict[str, Any]]) -> dict[str, Any]:
    left_out = "" if parameter.required else f" Left out: {parameter.without}."
    schema: dict[str, Any] = {
        "type": TYPES[parameter.kind],
        "description": f"{parameter.about}{left_out}",
    }
    if parameter.kind == "text":
        schema |= {"maxLength": MAX_PROMPT} | ({"minLength": 1} if parameter.required else {})
    if bounds := parameter.widest(limits):
        schema |= dict(zip(("minimum", "maximum"), bounds, strict=True))
    return schema


def _by_family(specs: list[ModelSpec], words: Callable[[Family], str]) -> str:
    """Return what holds for the families of these models, each named where they differ."""
    said = {family.title: words(family) for family in (FAMILIES[spec.family] for spec in specs)}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{what} for {title}" for title, what in said.items())


def _in_words(spec: ModelSpec) -> str:
    defaults, limits = spec.defaults, spec.limits
    numbers = []
    for parameter in parameters(but=SPECIAL):
        if bounds := parameter.bounds_of(dict(limits)):
            default = parameter.default_of(dict(defaults))
            numbers.append(f"{parameter.name} {bounds[0]:g} to {bounds[1]:g}, default {default:g}")
    return (
        f"{spec.id} ({spec.name}): {spec.about} Sides of {limits.side[0]} to {limits.side[1]} pixels, "
        f"{limits.pixels[0]:,} to {limits.pixels[1]:,} in all, default {defaults.width} × {defaults.height}; "
        f"{'; '.join(numbers)}."
    )
