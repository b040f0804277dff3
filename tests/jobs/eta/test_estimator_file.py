"""What the estimator has learned outlives its server, and a damaged file costs nothing but that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.eta.drawings import drawing, estimator, job, shown


def test_a_restarted_server_knows_its_pace(tmp_path: Path) -> None:
    path, asked = tmp_path / "pace.json", job(images=2)
    one = estimator(path)
    shown(one, drawing(asked, loading=9), loaded=False)
    one.save()
    assert estimator(path).seconds(asked, loaded=False) == one.seconds(asked, loaded=False)
    assert [file.name for file in tmp_path.iterdir()] == ["pace.json"]


def test_another_device_has_a_pace_of_its_own_in_the_same_file(tmp_path: Path) -> None:
    path, asked = tmp_path / "pace.json", job()
    slow, fast = estimator(path, "a slow one"), estimator(path, "a fast one")
    for device, step in ((slow, 1.0), (fast, 0.1)):
        shown(device, drawing(asked, step=step))
        device.save()
    assert estimator(path, "a slow one").seconds(asked, True) == slow.seconds(asked, True)
    assert estimator(path, "a fast one").seconds(asked, True) == fast.seconds(asked, True)
    assert estimator(path, "a new one").seconds(asked, True) is None


GARBAGE = [
    b"",
    b"\0" * 9,
    b"[]",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a GPU',
    b'{"a GPU": {"loads": [0.0]}}',
    b'{"a GPU": {"loads": [1e-300]}}',
    b'{"a GPU": {"loads": [NaN]}}',
    b'{"a GPU": {"models": {"sketch": {"ready": [1e300]}}}}',
    b'{"a GPU": {"models": {"sketch": {"plain": {"65536": [-1]}}}}}',
    b'{"a GPU": {"models": {"sketch": {"plain": {"1' + b"0" * 400 + b'": [1]}}}}}',
]


@pytest.mark.parametrize("content", GARBAGE)
def test_a_damaged_file_is_ignored_with_a_warning_and_mended_by_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path, asked = tmp_path / "pace.json", job()
    path.write_bytes(content)
    one = estimator(path)
    assert one.seconds(asked, loaded=True) is None
    assert "learned anew" in caplog.text
    shown(one, drawing(asked))
    one.save()
    assert estimator(path).seconds(asked, loaded=True) == one.seconds(asked, loaded=True)


def test_a_file_that_cannot_be_written_costs_no_drawing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = estimator(tmp_path / "missing" / "pace.json")
    shown(one, drawing(job()))
    one.save()
    assert "can't be kept" in caplog.text
