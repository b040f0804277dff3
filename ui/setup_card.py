"""The owner's card: what each model that can't run yet needs, each thing with its link."""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING

from ui.controls import link, need_words

if TYPE_CHECKING:
    from pipeline.catalog.catalogue import Catalogue
    from pipeline.weights.requirements import Requirement

_SPACE = "https://huggingface.co/spaces/{}/settings"


def setup_card(catalogue: Catalogue, needs: dict[str, list[Requirement]]) -> str:
    """The card as HTML; empty where every model can run.

    Args:
        needs: what each model needs, by its id.
    """
    missing = [spec for spec in catalogue if not all(need.met for need in needs[spec.id])]
    if not missing:
        return ""
    kinds = {need.what for spec in missing for need in needs[spec.id] if not need.met}
    cards = "".join(
        f"<section><h3>{html.escape(spec.name)}</h3>"
        f"<ul>{''.join(_row(need) for need in needs[spec.id])}</ul></section>"
        for spec in missing
    )
    return f"<p>{_where(kinds)}</p><div class='cards'>{cards}</div>"


def _where(kinds: set[str]) -> str:
    """Where the owner gives what is missing."""
    if space := os.environ.get("SPACE_ID"):
        steps = {"hardware": "choose hardware", "token": "add the secret HF_TOKEN", "disk": "attach storage"}
        todo = " and ".join(words for kind, words in steps.items() if kind in kinds)
        settings = link(_SPACE.format(space), "its settings")
        return f"{todo[0].upper()}{todo[1:]} in {settings}." if todo else f"See {settings}."
    words = {
        "token": "Set HF_TOKEN in the environment and start again.",
        "hardware": "The hardware is this machine’s.",
        "weights": "Mend models.yaml, or the files that it names.",
    }
    return " ".join(sentence for kind, sentence in words.items() if kind in kinds)


def _row(need: Requirement) -> str:
    mark, word = ("✓", "met") if need.met else ("✗", "missing")
    if not need.known:
        mark, word = "?", "unknown"
    return (
        f"<li class='{word}'><span class='mark' aria-hidden='true'>{mark}</span>"
        f"<span><span class='sr-only'>{word}:</span> {need_words(need)}</span></li>"
    )
