"""The documentation says of every parameter what its declaration says, and has each model's true bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.catalog.catalogue import read_catalogue
from tests.docs.support import bounds
from tests.support.tiny import ROOT


def test_the_documented_bounds_are_those_of_models_yaml() -> None:
    documented("api", bounds.bounds_table(read_catalogue(ROOT / "models.yaml")))


@pytest.mark.parametrize(
    "page, rendered",
    [
        ("api", bounds.meanings_table),
        ("api", bounds.names_table),
        ("api", bounds.drawn_row),
        ("openai", bounds.openai_rows),
        ("command-line", bounds.option_rows),
        ("mcp", bounds.mcp_names),
    ],
)
def test_the_documented_parameters_are_those_that_are_declared(
    page: str, rendered: Callable[[], str]
) -> None:
    documented(page, rendered())


def documented(page: str, table: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert table in text, f"put this into {page}.md:\n\n{table}"
