"""What a step or a picture costs at a size that was never seen, from those that were."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.eta.cost_model import SIZES, add_at, at_size
from tests.jobs.eta.drawings import MEGAPIXEL


@pytest.mark.parametrize(
    "law",
    [
        pytest.param(lambda p: 0.18 * p, id="matrix products"),
        pytest.param(lambda p: 0.14 * p + 0.04 * p**2, id="Large's share of attention"),
        pytest.param(lambda p: 0.05 * p + 0.13 * p**2, id="mostly attention"),
        pytest.param(lambda p: max(0.118, 0.14 * p + 0.04 * p**2), id="launch-bound below 0.7 MP"),
    ],
)
@pytest.mark.parametrize("asked", [0.4, 0.6, 0.75, 1.5, 2.0])
def test_a_size_between_and_above_those_seen_costs_what_the_law_says(
    law: Callable[[float], float], asked: float
) -> None:
    seen = {round(p * MEGAPIXEL): [law(p)] for p in (0.25, 0.5, 1.0)}
    assert at_size(seen, round(asked * MEGAPIXEL)) == pytest.approx(law(asked), rel=0.2)


def test_sizes_too_near_each_other_do_not_decide_how_the_cost_grows() -> None:
    seen = {MEGAPIXEL: [0.1], MEGAPIXEL + 16384: [0.11]}
    assert at_size(seen, 4 * MEGAPIXEL) == pytest.approx(0.11 * 4, rel=0.02)


def test_a_larger_picture_never_costs_less_than_a_smaller_one() -> None:
    seen = {MEGAPIXEL // 4: [0.12], MEGAPIXEL // 2: [0.12], MEGAPIXEL: [0.18], 2 * MEGAPIXEL: [0.5]}
    costs = [at_size(seen, pixels) or 0.0 for pixels in range(4096, 4 * MEGAPIXEL, 65536)]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_a_bounded_number_of_sizes_is_remembered_those_seen_last() -> None:
    sizes: dict[int, list[float]] = {}
    for pixels in range(1, 3 * SIZES):
        add_at(sizes, pixels, 1.0)
        add_at(sizes, 1, 1.0)
    assert len(sizes) == SIZES
    assert {1, 3 * SIZES - 1} <= set(sizes)
