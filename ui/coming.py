"""What is made ready at the start, under the model's dropdown: how far each model is, and why one failed."""

from __future__ import annotations

import html
import re
from typing import Any

from ui.controls import link
from ui.live import amount

_URL = re.compile(r"https://\S*[^\s.,;:!?)]")


def coming(models: list[dict[str, Any]]) -> str:
    """As HTML; empty where nothing is coming.

    Args:
        models: as /models has them.
    """
    return "".join(_row(model["name"], model["coming"]) for model in models if model["coming"])


def still_coming(models: list[dict[str, Any]]) -> bool:
    """Whether there will be news."""
    return any(model["coming"] and model["coming"]["phase"] != "failed" for model in models)


def _row(name: str, at: dict[str, Any]) -> str:
    if at["phase"] == "failed":
        return (
            f'<div class="missing"><strong>{html.escape(name)} is not ready</strong>'
            f"<p>{_linked(at['error'])}</p></div>"
        )
    share = 100 * at["done"] / at["total"] if at["total"] else 0
    label = html.escape(_words(name, at))
    span = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}"'
    bar = f'role="progressbar" aria-label="{label}" {span}'
    return f'<div class="row"><span>{label}</span><div {bar}><i style="width: {share:.1f}%"></i></div></div>'


def _words(name: str, at: dict[str, Any]) -> str:
    match at["phase"]:
        case "downloading" if at["total"]:
            return f"Downloading {name} · {amount(at['done'], at['total'])}"
        case "downloading":
            return f"Looking up the files of {name}"
        case "loading":
            return f"Loading {name} · part {min(at['done'] + 1, at['total'])} of {at['total']}"
    return f"Coming: {name}"


def _linked(words: str) -> str:
    """Words as HTML, addresses in them as links."""
    parts, end = [], 0
    for found in _URL.finditer(words):
        parts += [html.escape(words[end : found.start()]), link(found[0], found[0].removeprefix("https://"))]
        end = found.end()
    return "".join([*parts, html.escape(words[end:])])
