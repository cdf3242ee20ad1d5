"""Intervals around what was counted."""

import math


def wilson_interval(successes: float, trials: int, z: float = 1.96) -> tuple[float, float, float]:
    """Rate of success and its Wilson score interval (95 % at z = 1.96), which stays sensible for few trials.

    Of no trials nothing is known: the rate is NaN, the interval 0 to 1.
    """
    if trials == 0:
        return math.nan, 0.0, 1.0
    p = successes / trials
    centre = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return p, max(0.0, centre - half), min(1.0, centre + half)


def with_interval(middle: float, low: float, high: float, form: str = ".2f") -> str:
    """`0.80 [0.49, 0.94]`: a figure with its interval, as every table of this project shows it."""
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def difference_with_interval(middle: float, low: float, high: float) -> str:
    """`+0.05 [-0.10, +0.20]`: a difference of two shares, with as much of its interval as such a difference can be."""
    return with_interval(middle, max(-1.0, low), min(1.0, high), "+.2f")


def rate_with_interval(successes: int, trials: int) -> str:
    """Rate of success with its 95 % interval, in words."""
    return with_interval(*wilson_interval(successes, trials))
