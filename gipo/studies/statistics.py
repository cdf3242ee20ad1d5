"""Statistics of few runs: interquartile mean, stratified bootstrap, probability of improvement (arXiv 2108.13264).

Scores are [strata, runs]: one row for each task or setting, one column for each run.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import trim_mean


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all scores [..., S, R]: [...]."""
    return np.asarray(trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1))


def bootstrap_interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic` under resampling of the runs within each stratum.

    Args:
        scores: [S, R].
        statistic: of scores [..., S, R], as [...].
        draws: resamplings.
        level: of confidence.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    strata, runs = scores.shape
    picks = rng.integers(runs, size=(draws, strata, runs))
    resampled = np.take_along_axis(scores[None], picks, axis=2)
    low, high = np.quantile(statistic(resampled), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean over strata of P(X > Y) + ½·P(X = Y), for runs X of ours [S, R] and Y of theirs [S, Q]."""
    difference = ours[:, :, None] - theirs[:, None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
