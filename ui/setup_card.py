"""The owner's card: what each model that can't run yet needs, each thing with its link."""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING

from ui.controls import link, need_words

if TYPE_CHECKING:
    from pipeline.catalogue import Catalogue
    from pipeline.hardware import Need

_SPACE = "https://huggingface.co/spaces/{}/settings"


def setup_card(catalogue: Catalogue, needs: dict[str, list[Need]]) -> str:
    """The card as HTML; empty where every model can run.

    Args:
        needs: what each model needs, by its id.
    """
    missing = [spec for spec in catalogue if not all(need.met for need in needs[spec.id])]
    if not missing:
        return ""
    space = os.environ.get("SPACE_ID")
    where = (
        f"Choose hardware and add the secret HF_TOKEN in {link(_SPACE.format(space), 'its settings')}."
        if space
        else "Set HF_TOKEN in the environment and start again; the hardware is this machine’s."
    )
    cards = "".join(
        f"<section><h3>{html.escape(spec.name)}</h3>"
        f"<ul>{''.join(_row(need) for need in needs[spec.id])}</ul></section>"
        for spec in missing
    )
    return f"<p>{where}</p><div class='cards'>{cards}</div>"


def _row(need: Need) -> str:
    mark, word = ("✓", "met") if need.met else ("✗", "missing")
    if not need.known:
        mark, word = "?", "unknown"
    return (
        f"<li class='{word}'><span class='mark' aria-hidden='true'>{mark}</span>"
        f"<span><span class='sr-only'>{word}:</span> {need_words(need)}</span></li>"
    )
