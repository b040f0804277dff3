"""The API's documentation says of every parameter what its declaration says, and has each model's bounds."""

from __future__ import annotations

import pytest

from pipeline.catalog.catalogue import read_catalogue
from tests.docs.bounds import bounds_table, drawn_row, meanings_table, names_table
from tests.support.tiny import ROOT


def test_the_documented_bounds_are_those_of_models_yaml() -> None:
    documented(bounds_table(read_catalogue(ROOT / "models.yaml")))


@pytest.mark.parametrize("table", [meanings_table, names_table, drawn_row])
def test_the_documented_parameters_are_those_that_are_declared(table) -> None:
    documented(table())


def documented(table: str) -> None:
    assert table in (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), f"put this there:\n\n{table}"
