"""An ETA that a waiting job was told is held against what the job then took."""

from __future__ import annotations

import pytest

from bench.eta import Told


def test_an_estimate_is_judged_by_what_was_left_when_it_was_told() -> None:
    told = Told(
        asked=100.0, begun=110.0, ended=120.0, estimates=[(100.0, 30.0), (104.0, 16.0), (109.0, 99.0)]
    )
    assert told.first == pytest.approx(0.5)  # 30 s of 20
    assert told.halfway == pytest.approx(0.0)  # 16 s of 16: the one before 105


def test_a_job_that_was_told_nothing_has_no_error() -> None:
    told = Told(asked=100.0, begun=110.0, ended=120.0)
    assert (told.first, told.halfway) == (None, None)
