"""Holds the drawings of the worker processes that a module's tests start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.steps import Steps


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    steps = Steps(tmp_path_factory.mktemp("held") / "steps")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in steps.environment.items():
            patch.setenv(name, value)
        yield steps


@pytest.fixture
def steps(held: Steps) -> Iterator[Steps]:
    """The steps of the workers of these tests."""
    yield held
    held.go_on()
