"""How often the intervals of few runs hold: IQMs, probability of improvement and share, on simulated scores.

Scores are normal with unit deviation, the strata at different means, so that the true figures are known: by formula,
or for the interquartile mean from a million draws.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy.stats import norm
from tqdm import tqdm

from gipo.commands.studies.statistics import (
    Array,
    Interval,
    improvement_interval,
    interquartile_mean,
    iqm_difference_interval,
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


def interval_coverage(draws: int, seed: int) -> list[dict[str, object]]:
    """One row for each figure, number of strata and of runs: coverage, nominal .95, and mean width.

    Args:
        draws: simulated studies of each.
        seed: of the scores.
    """
    rng = np.random.default_rng(seed)
    shapes = tqdm(SHAPES, desc="intervals", unit="shape", delay=2)
    return [row for strata, runs in shapes for row in _of_shape(strata, runs, draws, rng)]


def _of_shape(strata: int, runs: int, draws: int, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    means = OFFSETS[:strata]

    def scores(shift: float = 0.0) -> Array:
        return rng.normal(size=(strata, runs)) + means + shift

    def improvement(shift: float) -> Interval:
        return improvement_interval(scores(shift), scores())

    def share() -> Interval:
        found = performance_profile(scores(), np.array([THRESHOLD]))
        ((low,), (high,)) = share_interval(found, strata * runs)
        return float(found[0]), low, high

    def row(figure: str, truth: float, once: Callable[[], Interval]) -> dict[str, object]:
        _, low, high = np.array([once() for _ in range(draws)]).T
        held, width = np.mean((low <= truth) & (truth <= high)), np.mean(high - low)
        return {"figure": figure, "strata": strata, "runs": runs, "draws": draws, "nominal": 0.95,
                "coverage": float(held), "width": float(width)}  # fmt: skip

    truth = float(interquartile_mean(rng.normal(size=(strata, TRUTH_DRAWS // strata)) + means))
    yield row("interquartile mean", truth, lambda: iqm_interval(scores(), RESAMPLINGS))
    for shift in SHIFTS:
        truth = float(norm.cdf(shift / 2**0.5))
        yield row(f"probability of improvement, shift {shift:g}", truth, partial(improvement, shift))
    yield row(f"share of runs above {THRESHOLD:g}", float(norm.sf(THRESHOLD - means).mean()), share)

    def difference() -> Interval:
        return iqm_difference_interval(scores(), scores(), RESAMPLINGS)

    yield row("difference of interquartile means", 0.0, difference)
