"""The server that the documentation's code blocks meet: the app as it is, whose sketch draws small and in few
steps where a block leaves both to the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import serve
from tests.tiny import models_yaml, repository_entries


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("docs")
    entries = repository_entries()
    entries["sketch"]["defaults"] |= {"width": 128, "height": 128, "steps": 8}
    models = models_yaml(folder, *entries.values())
    with serve(folder, STEPWISE_MODELS=str(models), STEPWISE_MAX_WAITING_EACH="50") as url:
        yield url
