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
from pipeline.request import MAX_PROMPT, MAX_SEED

if TYPE_CHECKING:
    from pipeline.engine import Engine

INSTRUCTIONS = (
    "Stepwise draws pictures from words. Call `draw` with a prompt; the other parameters have good defaults. "
    "Call `list_models` only to choose between models or to learn their bounds."
)
DRAW = """Draws one picture from a description in words. Returns the picture itself and, as JSON, how it was \
drawn (model, seed, size, steps, guidance, warnings) and `png`, the address of the finished file: give it to \
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

    def bounds(kind: str, limit: str) -> dict[str, Any]:
        pairs = [getattr(spec.limits, limit) for spec in specs]
        return {
            "type": kind,
            "minimum": min(low for low, _ in pairs),
            "maximum": max(high for _, high in pairs),
        }

    languages = _by_family(specs, lambda family: family.languages)
    threshold = _by_family(specs, lambda family: f"above {family.guidance_threshold:g}")
    models = "\n".join(f"- {_in_words(spec)}" for spec in specs)
    side = "Snapped to the model's multiple. Left out: the model's default."
    return {
        "type": "object",
        "properties": {
            "prompt": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_PROMPT,
                "description": f"What to draw, in {languages}: the subject, what surrounds it, the style.",
            },
            "model": {
                "type": "string",
                "enum": [spec.id for spec in specs],
                "description": f"Which model draws. Left out: {engine.default_model}.\n{models}",
            },
            "negative_prompt": {
                "type": "string",
                "maxLength": MAX_PROMPT,
                "description": "What to keep out of the picture. Read only where guidance is on: "
                f"{threshold}.",
            },
            "width": bounds("integer", "side") | {"description": f"In pixels. {side}"},
            "height": bounds("integer", "side") | {"description": f"In pixels. {side}"},
            "steps": bounds("integer", "steps")
            | {"description": "Denoising steps: more take longer. Left out: the model's default."},
            "guidance": bounds("number", "guidance")
            | {
                "description": "How closely the picture follows the prompt; too much makes it harsh. "
                "Left out: the model's default."
            },
            "seed": {
                "type": "integer",
                "minimum": 0,
                "maximum": MAX_SEED,
                "description": "The same seed and settings draw the same picture. Left out: random.",
            },
        },
        "required": ["prompt"],
        "additionalProperties": False,
    }


def _by_family(specs: list[ModelSpec], words: Callable[[Family], str]) -> str:
    """Return what holds for the families of these models, each named where they differ."""
    said = {family.title: words(family) for family in (FAMILIES[spec.family] for spec in specs)}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{what} for {title}" for title, what in said.items())


def _in_words(spec: ModelSpec) -> str:
    defaults, limits = spec.defaults, spec.limits
    return (
        f"{spec.id} ({spec.name}): {spec.about} Sides of {limits.side[0]} to {limits.side[1]} pixels, "
        f"{limits.pixels[0]:,} to {limits.pixels[1]:,} in all, default {defaults.width} × {defaults.height}; "
        f"{limits.steps[0]} to {limits.steps[1]} steps, default {defaults.steps}; "
        f"guidance {limits.guidance[0]:g} to {limits.guidance[1]:g}, default {defaults.guidance:g}."
    )
