"""What the tests of the documentation share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.support.server import small_models, small_server


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models.yaml of the code blocks' server, and of what they draw on this machine."""
    return small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[str]:
    with small_server(tmp_path_factory.mktemp("docs"), models) as url:
        yield url
