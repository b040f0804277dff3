"""What the docs' tables say of each parameter, rendered from its declaration and from models.yaml."""

from __future__ import annotations

from collections.abc import Callable

from api.mcp.tools import TAKEN
from api.openai.request import OURS, THEIRS
from pipeline.catalog.catalogue import Catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.events import DRAWN
from pipeline.families import FAMILIES
from pipeline.parameters import MAX_PROMPT, PARAMETERS, SPECIAL, Parameter, parameters

Cell = Callable[[ModelSpec], str]
ROWS: dict[str, Cell] = {
    "`prompt`, `negative_prompt`: characters": lambda spec: f"up to {MAX_PROMPT:,}",
    "tokens read of them, at most": lambda spec: f"{spec.limits.tokens[1]:,}",
    "… above which artefacts are warned of": lambda spec: f"{spec.clean_tokens or 'none'}",
    "`width`, `height`: pixels": lambda spec: _range(spec.limits.side),
    "… multiples of": lambda spec: f"{spec.limits.multiple}",
    "… default": lambda spec: f"{spec.defaults.width} × {spec.defaults.height}",
    "`width` × `height`": lambda spec: _range(spec.limits.pixels),
    "… × `images`, at most": lambda spec: f"{spec.limits.total_pixels:,}",
}


def bounds_table(catalogue: Catalogue) -> str:
    """A Markdown table: a row for each bound, a column for each model."""
    specs = list(catalogue)
    rows = dict(ROWS)
    for parameter in (PARAMETERS["images"], *parameters(but=SPECIAL)):
        rows[f"`{parameter.name}` (default)"] = _bounded(parameter)
    read_above = "`negative_prompt` is read at a guidance above"
    rows[read_above] = lambda spec: f"{FAMILIES[spec.family].guidance_threshold:g}"
    cells = [[row, *(value(spec) for spec in specs)] for row, value in rows.items()]
    return _table(["", *(f"`{spec.id}`" for spec in specs)], cells)


def meanings_table() -> str:
    """A Markdown table: what each parameter is, and what null, or leaving it out, means."""
    cells = [[f"`{one.name}`", one.short, _default(one)] for one in parameters()]
    return _table(["parameter", "meaning", "null or left out"], cells)


def names_table() -> str:
    """A Markdown table: what each parameter is called by the other clients."""
    cells = []
    for one in parameters():
        openai = f"`{THEIRS[one.name]}`" if one.name in THEIRS else f"`{one.name}` (ours)"
        option = "the first argument" if one.required else f"`{one.flag}`" if one.flag else "none"
        cells.append([f"`{one.name}`", openai, f"`{one.name}`" if one in TAKEN else "none", option])
    return _table(["here", "OpenAI", "MCP", "command line"], cells)


def drawn_row() -> str:
    """The row that says which parameters an `info` has, of the table of its keys."""
    names = ", ".join(f"`{name}`" for name in DRAWN if name not in ("steps", "images"))
    return f"| {names} | as it is drawn |"


def openai_rows() -> str:
    """The rows of the parameters that only we have, of the table of what OpenAI's clients may send."""
    rows = []
    for one in OURS:
        default = "what `quality` says" if one.name == "steps" else _default(one)
        rows.append(f"| `{one.name}` * | {one.short} | {default} |")
    return "\n".join(rows)


def option_rows() -> str:
    """The rows of the parameters, of the table of the command line's options."""
    return "\n".join(
        f"| `{one.flag} {one.metavar}` | {one.short}; if not given: {one.without} |"
        for one in parameters()
        if one.flag
    )


def mcp_names() -> str:
    """What the MCP tool `draw` takes, as its row says it."""
    required, optional = (
        [f"`{one.name}`" for one in TAKEN if one.required is must] for must in (True, False)
    )
    return f"| `draw` | {', '.join(required)}; optional {', '.join(optional)} |"


def _default(one: Parameter) -> str:
    return "required" if one.required else f"{one.without}{', as -1 is' if one.kind == 'seed' else ''}"


def _table(titles: list[str], cells: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *cells]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _range(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"{low:,.10g} to {high:,.10g}"


def _bounded(parameter: Parameter) -> Cell:
    def cell(spec: ModelSpec) -> str:
        bounds, default = parameter.bounds_of(dict(spec.limits)), parameter.default_of(dict(spec.defaults))
        return f"{_range(bounds) if bounds else 'any'} ({default:g})"

    return cell
