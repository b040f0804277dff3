"""The README's front matter is what makes a Space of the repository."""

from __future__ import annotations

from huggingface_hub import SpaceCard

from tests.support.tiny import ROOT


def test_the_front_matter_says_how_a_space_runs_it_and_the_text_begins_after_it() -> None:
    card = SpaceCard((ROOT / "README.md").read_text(encoding="utf-8"))
    assert (card.data.sdk, card.data.app_file, card.data.license) == ("gradio", "app.py", "mit")
    assert card.data.python_version == "3.12"
    assert (ROOT / card.data.app_file).is_file()
    assert card.text.lstrip().startswith("# Stepwise\n")
