"""Statistics of few runs: interquartile mean, stratified bootstrap, probability of improvement, performance profiles.

The definitions are those of arXiv 2108.13264 and of its library, rliable: the same figures, and interval ends that
differ only by the draws. Written out because rliable 1.2.0 does not import beside pandas 3, which its arch 7.2 cannot
use.

Scores are [strata, runs]: one row for each task or setting, one column for each run. Statistics take [..., S, R] and
keep the leading dimensions, so that all draws of a bootstrap are one call.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
DRAWS, LEVEL = 10_000, 0.95


def interquartile_mean(scores: Array) -> Array:
    """Mean of the middle half of all scores [..., S, R]: a quarter, rounded down, is left out at each end."""
    found: Array = trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)
    return found


def performance_profile(scores: Array, thresholds: Array) -> Array:
    """Share of runs above each threshold [T], mean over strata: scores [..., S, R] give [..., T]."""
    # F̂(τ) = 1/S Σ_s 1/R Σ_r 1[x_sr > τ]
    found: Array = (scores[..., None] > thresholds).mean((-3, -2))
    return found


def probability_of_improvement(ours: Array, theirs: Array) -> Array:
    """Mean over strata of P(X > Y) + ½·P(X = Y), for runs X of ours [..., S, R] and Y of theirs [..., S, Q]."""
    difference = ours[..., :, None] - theirs[..., None, :]
    found: Array = ((difference > 0) + 0.5 * (difference == 0)).mean((-3, -2, -1))
    return found


def min_max(scores: Array) -> Array:
    """Scores [S, R] as a fraction of the way from their stratum's worst run to its best; 0 where all are equal."""
    low, high = scores.min(-1, keepdims=True), scores.max(-1, keepdims=True)
    found: Array = (scores - low) / np.where(high > low, high - low, 1.0)
    return found


def bootstrap_interval(
    scores: Array, statistic: Statistic, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> tuple[Array, Array]:
    """Percentile interval of `statistic` under resampling of the runs within each stratum of scores [S, R]."""
    return _percentiles(statistic(_resample(scores, draws, np.random.default_rng(seed))), level)


def improvement_interval(
    ours: Array, theirs: Array, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> tuple[Array, Array]:
    """The same of the `probability_of_improvement`, the runs of the two resampled independently."""
    rng = np.random.default_rng(seed)
    values = probability_of_improvement(_resample(ours, draws, rng), _resample(theirs, draws, rng))
    return _percentiles(values, level)


def _resample(scores: Array, draws: int, rng: np.random.Generator) -> Array:
    """[draws, S, R]: runs drawn with replacement within each stratum."""
    strata, runs = scores.shape
    return np.take_along_axis(scores[None], rng.integers(runs, size=(draws, strata, runs)), axis=2)


def _percentiles(values: Array, level: float) -> tuple[Array, Array]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
