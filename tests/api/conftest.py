"""A second server for what the shared one can't show: it asks for keys, and draws in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import serve
from tests.support.tiny import entry, models_yaml

KEYS = ("first-key-0123456789", "second-key-0123456789")
SHORT = {
    "steps": [1, 8],
    "guidance": [0, 10],
    "pixels": [1024, 16384],
    "side": [32, 128],
    "images": [1, 2],
    "tokens": [1, 512],
    "multiple": 16,
    "total_pixels": 16384,
}


@dataclass(frozen=True)
class Keyed:
    """The server's address, and its log."""

    url: str
    log: Path


@pytest.fixture(scope="package")
def keyed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """It believes a proxy on this machine, so that a test may come from an address of its own, and guess; and
    answers to the names under example.org, which such a proxy hands on."""
    folder = tmp_path_factory.mktemp("keyed")
    models = models_yaml(folder, entry(tiny_folder, limits=SHORT))
    keys = f" {KEYS[0]}, {KEYS[1]} ,"
    settings = {
        "STEPWISE_API_KEYS": keys,
        "STEPWISE_PROXIES": "127.0.0.1",
        "STEPWISE_HOSTS": "example.org,.example.org",
    }
    with serve(folder, STEPWISE_MODELS=str(models), **settings) as url:
        yield Keyed(url, folder / "server.log")
