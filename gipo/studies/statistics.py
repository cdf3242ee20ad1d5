"""Statistics of few runs: interquartile mean, stratified bootstrap, probability of improvement (arXiv 2108.13264).

Scores are [strata, runs]: one row for each task or setting, one column for each run.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean


def interquartile_mean(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores [S, R]."""
    return float(trim_mean(scores, 0.25, axis=None))


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic` under resampling of the runs within each stratum of scores [S, R]."""
    rng = np.random.default_rng(seed)
    strata, runs = scores.shape
    picks = rng.integers(runs, size=(draws, strata, runs))
    resampled = np.take_along_axis(scores[None], picks, axis=2)
    values = [statistic(each) for each in resampled]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean over strata of P(X > Y) + ½·P(X = Y), for runs X of ours [S, R] and Y of theirs [S, Q]."""
    difference = ours[:, :, None] - theirs[:, None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
