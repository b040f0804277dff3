"""What the tests of the documentation share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.support.server import small_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with small_server(tmp_path_factory.mktemp("docs")) as url:
        yield url
