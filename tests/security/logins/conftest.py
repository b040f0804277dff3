"""A place that every account of the machine may go to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every account may go through; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="local-users-")).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
