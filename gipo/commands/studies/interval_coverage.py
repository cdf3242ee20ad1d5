"""How often the intervals of few runs hold: IQM, probability of improvement and share, on simulated scores.

Scores are normal with unit deviation, the strata at different means, so that the true figures are known: by formula,
or for the interquartile mean from a million draws.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.stats import norm
from tqdm import tqdm

from gipo.commands.studies.statistics import (
    Array,
    improvement_interval,
    interquartile_mean,
    iqm_interval,
    performance_profile,
    share_interval,
)

OFFSETS = np.array([0.0, 0.5, -0.4])[:, None]  # means of the strata
SHAPES = ((3, 5), (1, 5), (3, 3), (1, 3))  # strata × runs
SHIFTS = (0.0, 1.0, 2.0, 3.0)  # by which ours are better, in deviations
RESAMPLINGS = 1000  # of each interval: enough for its deviation
TRUTH_DRAWS = 1_000_000
THRESHOLD = 0.5  # of the share
Interval = tuple[Array, Array]


def interval_coverage(draws: int, seed: int) -> list[dict[str, object]]:
    """One row for each figure, number of strata and of runs: coverage, nominal .95, and mean width.

    Args:
        draws: simulated studies of each.
        seed: of the scores.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []

    def measure(figure: str, strata: int, runs: int, truth: float, once: Callable[[], Interval]) -> None:
        low, high = np.array([once() for _ in range(draws)]).T
        held, width = np.mean((low <= truth) & (truth <= high)), np.mean(high - low)
        rows.append({"figure": figure, "strata": strata, "runs": runs, "draws": draws, "nominal": 0.95,
                     "coverage": float(held), "width": float(width)})  # fmt: skip

    for strata, runs in tqdm(SHAPES, desc="intervals", unit="shape", delay=2):
        means = OFFSETS[:strata]
        scores = partial(_scores, rng, means, runs)
        truth = float(interquartile_mean(rng.normal(size=(strata, TRUTH_DRAWS // strata)) + means))
        measure("interquartile mean", strata, runs, truth, partial(_of_iqm, scores))
        for shift in SHIFTS:
            truth = float(norm.cdf(shift / 2**0.5))
            figure = f"probability of improvement, shift {shift:g}"
            measure(figure, strata, runs, truth, partial(_of_improvement, scores, shift))
        truth = float(norm.sf(THRESHOLD - means).mean())
        measure(f"share of runs above {THRESHOLD:g}", strata, runs, truth, partial(_of_share, scores))
    return rows


def _scores(rng: np.random.Generator, means: Array, runs: int, shift: float = 0.0) -> Array:
    return rng.normal(size=(len(means), runs)) + means + shift


def _of_iqm(scores: Callable[..., Array]) -> Interval:
    return iqm_interval(scores(), RESAMPLINGS)


def _of_improvement(scores: Callable[..., Array], shift: float) -> Interval:
    return improvement_interval(scores(shift), scores())


def _of_share(scores: Callable[..., Array]) -> Interval:
    drawn = scores()
    (share,) = performance_profile(drawn, np.array([THRESHOLD]))
    return share_interval(share, drawn.size)
