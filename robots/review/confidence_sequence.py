"""An interval around a mean that holds at every look, so that one may stop as soon as it tells.

Hedged betting of Waudby-Smith & Ramdas (arXiv 2010.09686, theorem 3 and section 4.3). For each mean m that is possible
someone bets that the next number lies above it, someone that it lies below; while m is the mean, nobody's capital comes
to 1/α with a probability above α, however long they bet (Ville). The interval is what nobody has got rich by.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
GRID = 2_001  # means that are tried
MOST = 0.5  # share of their capital that they may lose at once


def confidence_sequence(values: Array, low: float, high: float, alpha: float = 0.05) -> Array:
    """The interval after each of n numbers in turn, [n, 2], never wider than before: 1 − α holds for all at once.

    Args:
        values: [n] independent numbers of one mean, or such that each has that mean given those before it.
        low: which none of them is below.
        high: which none of them is above.
        alpha: probability with which the mean is outside at any time.

    Raises:
        ValueError: when a number is not from `low` to `high`.
    """
    if not ((values >= low) & (values <= high)).all():
        raise ValueError(f"numbers must lie in [{low:g}, {high:g}]")
    x, m = (values - low) / (high - low), np.linspace(0, 1, GRID)
    capital, possible = np.zeros((2, GRID)), np.ones(GRID, bool)  # logarithms, of those who bet on more and on less
    total, squares, found = 0.5, 0.25, np.empty((len(x), 2))
    with np.errstate(divide="ignore"):
        largest = np.stack((MOST / m, MOST / (1 - m)))
    for t, now in enumerate(x, 1):
        # λ_t = √(2·log(2/α) / (t·σ̂²_{t−1}·log(1 + t))), with t·σ̂²_{t−1} = ¼ + Σ_{i<t} (x_i − μ̂_i)²
        share = math.sqrt(2 * math.log(2 / alpha) / (squares * math.log(1 + t)))
        bets = np.minimum(share, largest)
        capital += np.log1p(np.stack((bets[0] * (now - m), -bets[1] * (now - m))))
        possible &= np.logaddexp(*(capital - math.log(2))) < math.log(1 / alpha)
        total += now
        squares += (now - total / (t + 1)) ** 2
        found[t - 1] = _ends(m, possible)
    return low + (high - low) * found


def _ends(m: Array, possible: NDArray[np.bool_]) -> tuple[float, float]:
    """The least and the largest mean that is possible, each a step of the grid farther out."""
    inside = np.flatnonzero(possible)
    if not len(inside):  # with a probability below α
        return math.nan, math.nan
    step = 1 / (GRID - 1)
    return max(0.0, m[inside[0]] - step), min(1.0, m[inside[-1]] + step)
