"""The server that the documentation's code blocks meet: the app as it is, whose sketch draws small and in few
steps where a block leaves both to the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import serve
from tests.inside.sitecustomize import SCRIPTED
from tests.support.tiny import models_yaml, repository_entries


def small_models(folder: Path) -> Path:
    """Its models.yaml, in this folder."""
    entries = repository_entries()
    entries["sketch"]["defaults"] |= {"width": 128, "height": 128, "steps": 8}
    return models_yaml(folder, *entries.values())


@contextlib.contextmanager
def small_server(folder: Path, models: Path) -> Iterator[str]:
    """Its address. folder: for its log and its files. A script draws for it: what the clients do is tried."""
    settings = {"STEPWISE_MODELS": str(models), "STEPWISE_MAX_WAITING_EACH": "50", **SCRIPTED}
    with serve(folder, **settings) as url:
        yield url
