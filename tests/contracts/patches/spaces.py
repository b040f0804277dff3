"""Where Stepwise reaches into spaces."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "0.51.3"

PATCHES = (
    Patch(
        "spaces",
        "pipeline/executors/zerogpu.py",
        "from spaces.zero.client import get_duration_seconds",
        "`zero.client.get_duration_seconds`",
        "what a size of GPU costs has no public name",
        "tests/contracts/test_spaces.py::test_a_second_of_a_gpu_costs_what_this_function_says",
    ),
)
