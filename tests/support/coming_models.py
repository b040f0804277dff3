"""Models that have to be fetched before they are drawn with: what the tests of making them ready share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine import Engine
from tests.support.services.hub import FakeHub, Repository, serve_hub, use_hub
from tests.support.tiny import catalogue, entry

WEIGHTS = "transformer/diffusion"
REQUEST = {"prompt": "a fox", "steps": 1, "width": 64, "height": 64}


@contextlib.contextmanager
def hub_with_two(tiny_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with the models me/one and me/two, the second gated; this process's token may fetch both."""
    with serve_hub() as hub:
        hub.repositories["me/one"] = Repository(tiny_folder)
        hub.repositories["me/two"] = Repository(tiny_folder, accepted=frozenset({"hf_good"}))
        use_hub(monkeypatch, hub, folder / "hub", "hf_good")
        yield hub


def engine_with_three(tiny_folder: Path, folder: Path) -> Engine:
    """An engine with the Hub's models `one` and `two`, and with `here`, which needn't be fetched."""
    entries = [entry(Path(f"me/{name}"), name) for name in ("one", "two")]
    return Engine(catalogue(folder, *entries, entry(tiny_folder, "here")))
