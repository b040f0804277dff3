"""What importing all that draws, which every server and worker does at its start, says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.tiny import ROOT

START = (
    "import sys; from pipeline.families import import_pipelines; import_pipelines(); import bitsandbytes;"
    "print(*sys.modules)"
)


@pytest.mark.parametrize("way", ["on", "off"])
def test_a_start_asks_for_no_package_that_is_not_needed_and_imports_no_compiler(way: str) -> None:
    """On no processor."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    started = subprocess.run(
        [sys.executable, "-c", START],
        cwd=ROOT,
        env=environment | {"TESTS_AVX512_BF16": way},
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, started.stderr
    assert "kernels" not in started.stderr
    assert "torch._inductor.compile_fx" not in started.stdout.split()
