"""`stepwise models`: what can draw here or there, as a table."""

from __future__ import annotations

import argparse
import json

from cli.sources import Row, source
from cli.terminal import printable, put
from pipeline.parameters import parameters

SHOWN = [one.name for one in parameters(but={"width", "height"}) if one.models_default]
"""Parameters whose defaults have a column of their own."""
TITLES = ("", "id", "name", *SHOWN, "size", "runs")


def models(options: argparse.Namespace) -> int:
    """Prints the models, one a line, the default marked with *.

    Raises:
        StepwiseError: models.yaml can't be used, or the server isn't one.
    """
    found = source(options.server).models()
    if options.json:
        put(json.dumps(found))
        return 0
    rows = [Row.model_validate(model) for model in found]
    table = [TITLES, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    for cells in table:
        put("  ".join(map(str.ljust, cells, widths)).rstrip())
    for row in rows:
        if not row.available:
            put(f"\n{_line(row.id)} can't run: {_line(row.reason or '')}")
    return 0


def _cells(row: Row) -> tuple[str, ...]:
    # A server of another version may have other parameters.
    defaults = {name: f"{value:g}" for name, value in row.defaults.items()}
    return (
        "*" if row.default else "",
        _line(row.id),
        _line(row.name),
        *(defaults.get(name, "-") for name in SHOWN),
        f"{defaults.get('width', '-')}x{defaults.get('height', '-')}",
        "yes" if row.available else "no",
    )


def _line(text: str) -> str:
    return printable(text).replace("\n", " ")
