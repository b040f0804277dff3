"""The table of every STEPWISE_ setting, rendered from settings.py's fields and their docstrings:
docs/settings.md has to hold it.

`python -m tests.docs.support.settings_table` prints it.
"""

from __future__ import annotations

import re
from pathlib import Path

from environment import PREFIX, allowed_values
from settings import Settings


def settings_table() -> str:
    """A Markdown table: a row for each field, in their order."""
    schemas = Settings.model_json_schema()["properties"]
    rows = ["| variable | meaning | it may be | default |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        meaning = re.sub(r"\b[a-z-]+\.md\b", r"[\g<0>](\g<0>)", meaning)
        cells = f"`{PREFIX}{name.upper()}`", meaning, allowed_values(schemas[name]), _default(field.default)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _default(value: object) -> str:
    """A field's default as an owner would write it."""
    if value is None:
        return "unset"
    if value == ():
        return "none"
    if isinstance(value, Path):
        return f"`{value.name}` beside app.py"
    return f"`{str(value).lower()}`"


if __name__ == "__main__":
    print(settings_table())
