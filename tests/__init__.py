"""The tests. What they change inside Python processes, this one and those that it starts, is `inside`."""

import os
from pathlib import Path

from tests.inside import sitecustomize  # noqa: F401  # before anything imports what it changes

ROOT = Path(__file__).parent.parent
INSIDE = str(Path(__file__).parent / "inside")


def python_path(*folders: str) -> str:
    """PYTHONPATH for a process of the tests that is to find modules in these folders."""
    return os.pathsep.join([*folders, INSIDE])


os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [INSIDE, os.environ.get("PYTHONPATH")]))
