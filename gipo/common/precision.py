"""Numbers at the precision in which an artifact keeps them: float32."""

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
