"""The table of every parameter's bounds per model, rendered from models.yaml: docs/api.md has to hold it."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.catalog.catalogue import Catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.families import FAMILIES
from pipeline.request import MAX_PROMPT

ROWS: dict[str, Callable[[ModelSpec], str]] = {
    "`prompt`, `negative_prompt`: characters": lambda spec: f"up to {MAX_PROMPT:,}",
    "tokens read of them, at most": lambda spec: f"{spec.limits.tokens[1]:,}",
    "… above which artefacts are warned of": lambda spec: f"{spec.clean_tokens or 'none'}",
    "`width`, `height`: pixels": lambda spec: _range(spec.limits.side),
    "… multiples of": lambda spec: f"{spec.limits.multiple}",
    "… default": lambda spec: f"{spec.defaults.width} × {spec.defaults.height}",
    "`width` × `height`": lambda spec: _range(spec.limits.pixels),
    "… × `images`, at most": lambda spec: f"{spec.limits.total_pixels:,}",
    "`images` (default)": lambda spec: _bounded(spec.limits.images, 1),
    "`steps` (default)": lambda spec: _bounded(spec.limits.steps, spec.defaults.steps),
    "`guidance` (default)": lambda spec: _bounded(spec.limits.guidance, spec.defaults.guidance),
    "`negative_prompt` is read at a guidance above": lambda spec: (
        f"{FAMILIES[spec.family].guidance_threshold:g}"
    ),
}


def bounds_table(catalogue: Catalogue) -> str:
    """A Markdown table: a row for each bound, a column for each model."""
    specs = list(catalogue)
    lines = [["", *(f"`{spec.id}`" for spec in specs)], ["---"] * (len(specs) + 1)]
    lines += [[row, *(value(spec) for spec in specs)] for row, value in ROWS.items()]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in lines)


def _range(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"{low:,.10g} to {high:,.10g}"


def _bounded(bounds: tuple[float, float], default: float) -> str:
    return f"{_range(bounds)} ({default:g})"
