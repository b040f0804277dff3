"""What importing all that draws, which every server and worker does at its start, says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.tiny import ROOT

START = "from pipeline.families import import_pipelines; import_pipelines(); import bitsandbytes"


@pytest.mark.parametrize("way", ["on", "off"])
def test_no_processor_makes_a_start_ask_for_a_package_that_is_not_needed(way: str) -> None:
    started = subprocess.run(
        [sys.executable, "-c", START],
        cwd=ROOT,
        env=os.environ | {"TESTS_AVX512_BF16": way},
        capture_output=True,
        text=True,
    )
    assert started.returncode == 0, started.stderr
    assert "kernels" not in started.stderr
