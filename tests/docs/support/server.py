"""The server that the documentation's code blocks meet: the app as it is, whose sketch draws small and in few
steps where a block leaves both to the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import serve
from tests.support.tiny import models_yaml, repository_entries


@contextlib.contextmanager
def small_server(folder: Path) -> Iterator[str]:
    """Its address. folder: for its models.yaml, its log and its files."""
    entries = repository_entries()
    entries["sketch"]["defaults"] |= {"width": 128, "height": 128, "steps": 8}
    models = models_yaml(folder, *entries.values())
    with serve(folder, STEPWISE_MODELS=str(models), STEPWISE_MAX_WAITING_EACH="50") as url:
        yield url
