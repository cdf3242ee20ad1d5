"""Statistics of few runs: interquartile mean, probability of improvement, performance profiles, and their intervals.

The figures are those of arXiv 2108.13264 and of its library, rliable. The intervals are not: its percentile bootstrap
holds what it should in 73 to 94 % of draws with three to five runs, and in 11 to 57 % near a probability of 1. What
these hold is measured by `gipo-study theory`.

Scores are [strata, runs]: one row for each task or setting, one column for each run. Statistics take [..., S, R] and
keep the leading dimensions, so that all draws of a bootstrap are one call.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, trim_mean
from scipy.stats import t as student

from gipo.common.intervals import wilson_interval

Array = NDArray[np.float64]
Interval = tuple[float, float, float]  # a figure, and the low and the high end around it
DRAWS, LEVEL = 10_000, 0.95
GRID = 10_001  # probabilities that are tried as ends of an interval
# Scores that are nearer than this are equal: shares of episodes are logged in float32, in which .96 − .66 and .92 − .62
# are 3e-8 apart.
ROUNDING = 1e-6


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
    found: Array = ((difference > ROUNDING) + 0.5 * (np.abs(difference) <= ROUNDING)).mean((-3, -2, -1))
    return found


def min_max(scores: Array) -> Array:
    """Scores [S, R] as a fraction of the way from their stratum's worst run to its best; 0 where all are equal."""
    low, high = scores.min(-1, keepdims=True), scores.max(-1, keepdims=True)
    found: Array = (scores - low) / np.where(high > low, high - low, 1.0)
    return found


def iqm_interval(scores: Array, draws: int = DRAWS) -> Interval:
    """The `interquartile_mean` of scores [S, R] and its interval, from its spread under resampling within strata.

    IQM ± t·s·√(R/(R−1)), s the deviation over resamplings, t of S·(R−1) degrees of freedom. Percentiles of the same
    resamplings, which rliable takes, are too narrow for so few runs: see `gipo.commands.studies.interval_coverage`.
    """
    strata, runs = scores.shape
    middle = float(interquartile_mean(scores))
    if runs < 2:
        return middle, -math.inf, math.inf
    half = float(student.ppf((1 + LEVEL) / 2, strata * (runs - 1)) * math.sqrt(_iqm_variance(scores, draws, seed=0)))
    return middle, middle - half, middle + half


def iqm_difference_interval(ours: Array, theirs: Array, draws: int = DRAWS) -> Interval:
    """Interquartile mean of ours [S, R] less that of theirs [S, Q], and its interval: as `iqm_interval`.

    Both are resampled on their own; t has the degrees of freedom of Welch and Satterthwaite.
    """
    middle = float(interquartile_mean(ours) - interquartile_mean(theirs))
    if min(ours.shape[1], theirs.shape[1]) < 2:
        return middle, -math.inf, math.inf
    variances = [_iqm_variance(side, draws, seed) for seed, side in enumerate((ours, theirs))]
    if not sum(variances):
        return middle, middle, middle
    # ν = (v₁ + v₂)²/(v₁²/ν₁ + v₂²/ν₂)
    freedom = sum(variances) ** 2 / sum(
        v**2 / (side.shape[0] * (side.shape[1] - 1)) for v, side in zip(variances, (ours, theirs), strict=True)
    )
    half = float(student.ppf((1 + LEVEL) / 2, freedom) * math.sqrt(sum(variances)))
    return middle, middle - half, middle + half


def _iqm_variance(scores: Array, draws: int, seed: int) -> float:
    """Variance of the interquartile mean of scores [S, R], R > 1, unbiased as for a mean of so few: × R/(R−1).

    Of all resamplings where `draws` would be no fewer, so that no seed decides on which side of 0 an interval ends.
    """
    strata, runs = scores.shape
    # [draws, S, R]: runs drawn with replacement within each stratum
    if runs**scores.size <= draws:
        chosen = np.indices((runs,) * scores.size).reshape(strata, runs, -1).transpose(2, 0, 1)
    else:
        chosen = np.random.default_rng(seed).integers(runs, size=(draws, strata, runs))
    found = interquartile_mean(np.take_along_axis(scores[None], chosen, axis=2)).var()
    return float(found * runs / (runs - 1))


def improvement_interval(ours: Array, theirs: Array) -> Interval:
    """The `probability_of_improvement` of ours [S, R] over theirs [S, Q] and its interval, a score interval.

    All P with |P̂ − P| ≤ z·√(V(P)/S), V the variance of a Mann-Whitney statistic (method 5 of Newcombe, Statistics in
    Medicine 25, 2006), at equal P in every stratum, which is the widest. It does not shrink to a point at 0 and 1, as
    an interval from resampling does.
    """
    strata, runs, others = *ours.shape, theirs.shape[-1]
    found = float(probability_of_improvement(ours, theirs))
    z, half_n = norm.ppf((1 + LEVEL) / 2), (runs + others) / 2 - 1
    # V(P) = P(1−P)·[1 + (N−1)·((1−P)/(2−P) + P/(1+P))]/(R·Q), N = (R+Q)/2
    p = np.linspace(0, 1, GRID)
    variance = p * (1 - p) * (1 + half_n * ((1 - p) / (2 - p) + p / (1 + p))) / (runs * others * strata)
    inside = p[np.abs(found - p) <= z * np.sqrt(variance) + 1 / GRID]
    return found, float(inside.min()), float(inside.max())


def paired_interval(differences: Array) -> Interval:
    """The mean of differences [R] between runs that share a seed, and Student's interval of it."""
    runs, mean = len(differences), float(differences.mean())
    if runs < 2:
        return mean, -math.inf, math.inf
    # d̄ ± t·s/√R
    half = float(student.ppf((1 + LEVEL) / 2, runs - 1) * differences.std(ddof=1) / math.sqrt(runs))
    return mean, mean - half, mean + half


def share_interval(share: Array, trials: int) -> tuple[Array, Array]:
    """Wilson score interval of a share [T] of so many independent trials, pointwise."""
    z = float(norm.ppf((1 + LEVEL) / 2))
    _, low, high = np.vectorize(wilson_interval)(share * trials, trials, z)
    return low, high
