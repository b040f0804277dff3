"""The API's documentation names the clients' versions that its examples are run with."""

from __future__ import annotations

from tests.clients import CLIENTS, versions_table
from tests.support.tiny import ROOT


def test_the_documented_versions_are_those_that_the_examples_run_with() -> None:
    table = versions_table()
    assert table in (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), f"put this there:\n\n{table}"


def test_every_client_has_examples() -> None:
    assert all(list(client.examples()) for client in CLIENTS)
