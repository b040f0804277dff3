"""Starts the worker processes of a module's tests, and holds their drawings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.workers import launch
from tests.inside import sitecustomize
from tests.support import programs
from tests.support.steps import Steps


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """What workers import isn't imported anew by each of them. That a worker dies with its parent, and which
    GPU it sees, is tested with workers that Python starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")  # as of all that is forked
        sitecustomize.start_with(launch, programs.start, patch.setattr)
        yield


@pytest.fixture(scope="module")
def held(forked: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
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
