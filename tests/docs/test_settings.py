"""docs/settings.md has every setting as the code has it, and the README the ten that matter."""

from __future__ import annotations

import re

from environment import FOREIGN
from settings import Settings
from tests.docs.support.settings_table import settings_table
from tests.support.tiny import ROOT

ROW = re.compile(r"^\| `[A-Z_]+`.*\|$", re.MULTILINE)
NAME = re.compile(r"`([A-Z][A-Z_]+)`")


def names(file: str) -> list[str]:
    """The variables that the first column of this page's tables names."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return [name for row in ROW.findall(text) for name in NAME.findall(row.split("|")[1])]


def test_the_documented_settings_are_those_of_the_code() -> None:
    table = settings_table()
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert table in text, f"put this there:\n\n{table}"


def test_every_setting_says_what_it_means() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name
        assert "|" not in field.description, name


def test_each_variable_has_one_row_those_of_other_programs_too() -> None:
    documented = names("docs/settings.md")
    assert len(documented) == len(set(documented))
    assert set(FOREIGN) <= set(documented)


def test_the_readme_has_ten_of_them() -> None:
    chosen = names("README.md")
    assert len(chosen) == 10
    assert set(chosen) <= set(names("docs/settings.md"))
