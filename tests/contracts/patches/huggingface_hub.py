"""Where Stepwise reaches into huggingface_hub."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "2.4.0"

PATCHES = (
    Patch(
        "huggingface_hub",
        "pipeline/weights/download.py",
        '"huggingface_hub.snapshot_download"',
        "the name of `snapshot_download`'s progress bar",
        "of its two bars of bytes one counts what crossed the network, which may be compressed",
        "tests/contracts/test_huggingface_hub.py::test_a_snapshots_bar_has_this_name",
    ),
)
