"""What pipeline/weights/download.py knows of huggingface_hub's progress bars is still so."""

from __future__ import annotations

from tests.contracts.source import source


def test_a_snapshots_bar_has_this_name() -> None:
    text = source("huggingface_hub._snapshot_download", "snapshot_download")
    assert text.count('name="huggingface_hub.snapshot_download"') == 1
    assert text.count('name="huggingface_hub.snapshot_download.transfer"') == 1
