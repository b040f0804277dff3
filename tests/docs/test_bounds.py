"""The API's documentation has every model's true bounds."""

from __future__ import annotations

from pipeline.catalog.catalogue import read_catalogue
from tests.docs.bounds import bounds_table
from tests.support.tiny import ROOT


def test_the_documented_bounds_are_those_of_models_yaml() -> None:
    table = bounds_table(read_catalogue(ROOT / "models.yaml"))
    assert table in (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), f"put this there:\n\n{table}"
