"""docs/architecture.md has the transitions of a job's state as the code has them."""

from __future__ import annotations

from tests.docs.support.states_table import states_table
from tests.support.tiny import ROOT


def test_the_documented_transitions_are_those_of_the_code() -> None:
    table = states_table()
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert table in text, f"put this there:\n\n{table}"
