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
    at = {model["name"]: model["coming"] for model in models if model["coming"]}
    rows = [_row(name, one) for name, one in at.items() if one["phase"] != "queued"]
    if queued := [html.escape(name) for name, one in at.items() if one["phase"] == "queued"]:
        rows.append(f"<p>{'Also coming' if rows else 'Coming'}: {', '.join(queued)}</p>")
    return "".join(rows)


def still_coming(models: list[dict[str, Any]]) -> bool:
    """Whether there will be news."""
    return any(model["coming"] and model["coming"]["phase"] != "failed" for model in models)


def _row(name: str, at: dict[str, Any]) -> str:
    if at["phase"] == "failed":
        return (
            f'<div class="missing"><strong>{html.escape(name)} is not ready</strong>'
            f"<p>{_linked(at['error'])}</p></div>"
        )
    words, figures = _words(at)
    words = html.escape(f"{words} {name}")
    share = 100 * at["done"] / at["total"] if at["total"] else 0
    span = f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share:.0f}"'
    return (
        f'<div class="row"><p><span>{words}</span><span>{figures}</span></p>'
        f'<div role="progressbar" aria-label="{words}" {span}><i style="width: {share:.1f}%"></i></div></div>'
    )


def _words(at: dict[str, Any]) -> tuple[str, str]:
    """What is done with the model, and how far that is."""
    if at["phase"] == "loading":
        return "Loading", f"part {min(at['done'] + 1, at['total'])} of {at['total']}"
    if at["total"]:
        return "Downloading", amount(at["done"], at["total"])
    return "Looking up the files of", ""


def _linked(words: str) -> str:
    """Words as HTML, addresses in them as links."""
    parts, end = [], 0
    for found in _URL.finditer(words):
        parts += [html.escape(words[end : found.start()]), link(found[0], found[0].removeprefix("https://"))]
        end = found.end()
    return "".join([*parts, html.escape(words[end:])])
