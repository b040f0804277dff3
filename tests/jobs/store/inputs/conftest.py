"""Inputs in a folder of their own, with a clock that the test sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.store.inputs.store import Inputs
from jobs.store.models import Owner
from tests.jobs.waiting import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def used() -> set[tuple[str, Owner]]:
    """What waiting and running jobs name."""
    return set()


@pytest.fixture
def inputs(tmp_path: Path, clock: Clock, used: set[tuple[str, Owner]]) -> Inputs:
    return Inputs(tmp_path, lambda: used, clock)
