"""Numbers as what holds them can: an artifact in float32, an environment in the type of its space."""

from collections.abc import Sequence

import numpy as np

Numbers = float | Sequence[float]


def alike(first: Numbers, second: Numbers) -> bool:
    """Whether two numbers, or as many of each, round to the same float32.

    A bound of .35 is .3499999940395355 once a policy has it; nothing finer is known of it, and nothing coarser passes.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, on both sides
        return one.shape == other.shape and np.array_equal(one.astype(np.float32), other.astype(np.float32))


def nearest_in(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The values between two bounds that are nearest to `action`, of the bounds' type; all [D].

    Whole numbers are rounded, half to even; a bound that float32 rounded outwards is not passed.
    """
    inside = np.clip(np.asarray(action, np.float64), low.astype(np.float64), high.astype(np.float64))
    return (np.rint(inside) if low.dtype.kind in "iu" else inside).astype(low.dtype)
