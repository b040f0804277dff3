"""The tests. What they change inside Python processes, this one and those that it starts, is `inside`."""

import os
from pathlib import Path

from api.gradio.interfaces import leave_interfaces
from tests.inside import sitecustomize  # noqa: F401  # before anything imports what it changes

ROOT = Path(__file__).parent.parent
INSIDE = str(Path(__file__).parent / "inside")


def python_path(*folders: str) -> str:
    """PYTHONPATH for a process of the tests that is to find modules in these folders."""
    return os.pathsep.join([*folders, INSIDE])


leave_interfaces()  # as app.py does
# As app.py has it, before torch is imported: libgomp's threads spin while they wait, and where as many
# processes as cores run tests, that more than doubles the CPU time of a drawing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# As pipeline has it, before a test imports diffusers.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [INSIDE, os.environ.get("PYTHONPATH")]))
