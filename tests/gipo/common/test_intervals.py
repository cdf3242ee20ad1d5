"""Intervals by hand."""

import math

import pytest

from gipo.common.intervals import difference_with_interval, rate_with_interval, wilson_interval, with_interval


def test_wilson_interval_by_hand() -> None:
    # p = .9 of 50, z² = 3.8416: centre (.9 + .038416)/1.076832, half-width 1.96·√(.0018 + .00038416)/1.076832
    assert wilson_interval(45, 50) == pytest.approx((0.9, 0.786396, 0.956524), abs=1e-6)


@pytest.mark.parametrize(("successes", "interval"), [(0, (0.0, 0.0, 0.277540)), (10, (1.0, 0.722460, 1.0))])
def test_wilson_interval_stays_between_zero_and_one(successes: int, interval: tuple[float, float, float]) -> None:
    assert wilson_interval(successes, 10) == pytest.approx(interval, abs=1e-5)


def test_of_nothing_nothing_is_known() -> None:
    rate, low, high = wilson_interval(0, 0)
    assert math.isnan(rate)
    assert (low, high) == (0.0, 1.0)


def test_as_it_is_shown() -> None:
    assert rate_with_interval(8, 10) == "0.80 [0.49, 0.94]"  # Wilson (1927)
    assert with_interval(0.25, -0.5, 1, "+.1f") == "+0.2 [-0.5, +1.0]"
    assert difference_with_interval(0.9, 0.5, 1.3) == "+0.90 [+0.50, +1.00]"
    assert difference_with_interval(-0.9, -1.3, -0.5) == "-0.90 [-1.00, -0.50]"
