"""The owner's card: what each model that can't run yet needs, each thing with its link."""

from __future__ import annotations

import html
import os

from pipeline.catalogue import Catalogue
from pipeline.hardware import Need
from ui.controls import link

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
        f"In {link(_SPACE.format(space), 'this Space’s settings')}: choose hardware, add the secret HF_TOKEN."
        if space
        else "Set HF_TOKEN in the environment and start again; the hardware is this machine’s."
    )
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(spec.name)}</th>"
        f"<td><ul>{''.join(_row(need) for need in needs[spec.id])}</ul></td></tr>"
        for spec in missing
    )
    return (
        f"<p>{where} Make a token (scope: read) at "
        f"{link('https://huggingface.co/settings/tokens', 'your token settings')}.</p>"
        f"<table><thead><tr><th scope='col'>Model</th><th scope='col'>Needs</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _row(need: Need) -> str:
    mark, word = ("✓", "met") if need.met else ("✗", "missing")
    source = f" {link(need.url, 'Open')}" if need.url else ""
    return (
        f"<li class='{word}'><span aria-hidden='true'>{mark}</span> "
        f"<span class='sr-only'>{word}:</span> {html.escape(need.words)}{source}</li>"
    )
