"""How often the intervals of few runs hold: IQMs, probability of improvement and share, on simulated scores.

Scores are normal with unit deviation (in one row theirs spread less), the strata at different means, so that the true
figures are known: by formula, or for the interquartile mean from a million draws. Or they are success rates, of which
most are near 0 or 1: a task is learned by none of its runs, by all, or by some.
"""

from collections.abc import Callable, Iterable, Iterator
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
NARROW = 0.1  # deviation of theirs, where the two sides spread unlike
RESAMPLINGS = 1000  # of each interval: enough for its deviation
TRUTH_DRAWS = 1_000_000
THRESHOLD = 0.5  # of the share
TASKS = ((3, 5), (10, 3), (12, 3), (38, 3))  # tasks × runs of the studies of success
GOALS, LEARNED, FAILED = 50, 0.95, 0.05  # test episodes, and the rate of success in them


def interval_coverage(draws: int, seed: int) -> list[dict[str, object]]:
    """One row for each figure, number of strata and of runs: coverage, nominal .95, and mean width.

    Args:
        draws: simulated studies of each.
        seed: of the scores.
    """
    rng = np.random.default_rng(seed)
    shapes = tqdm(SHAPES, desc="intervals", unit="shape", delay=2)
    normal = [row for strata, runs in shapes for row in _of_shape(strata, runs, draws, rng)]
    return [*normal, *(_of_success(tasks, runs, draws, rng) for tasks, runs in TASKS)]


def _of_success(tasks: int, runs: int, draws: int, rng: np.random.Generator) -> dict[str, object]:
    """Of success rates, few of them in the middle: some 36 % of the tasks are learned by no run, 18 % by all."""
    chance = np.linspace(-0.8, 1.4, tasks).clip(0, 1)[:, None]

    def rates(runs: int) -> Array:
        learned = rng.random((tasks, runs)) < chance
        return rng.binomial(GOALS, np.where(learned, LEARNED, FAILED)) / GOALS

    truth = float(interquartile_mean(rates(TRUTH_DRAWS // tasks)))
    found = (iqm_interval(rates(runs), RESAMPLINGS) for _ in range(draws))
    return _row("interquartile mean of success rates", tasks, runs, truth, found)


def _row(figure: str, strata: int, runs: int, truth: float, intervals: Iterable[Interval]) -> dict[str, object]:
    _, low, high = np.array(list(intervals)).T
    held, width = np.mean((low <= truth) & (truth <= high)), np.mean(high - low)
    return {"figure": figure, "strata": strata, "runs": runs, "draws": len(low), "nominal": 0.95,
            "coverage": float(held), "width": float(width)}  # fmt: skip


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
        return _row(figure, strata, runs, truth, (once() for _ in range(draws)))

    truth = float(interquartile_mean(rng.normal(size=(strata, TRUTH_DRAWS // strata)) + means))
    yield row("interquartile mean", truth, lambda: iqm_interval(scores(), RESAMPLINGS))
    for shift in SHIFTS:
        truth = float(norm.cdf(shift / 2**0.5))
        yield row(f"probability of improvement, shift {shift:g}", truth, partial(improvement, shift))
    yield row(f"share of runs above {THRESHOLD:g}", float(norm.sf(THRESHOLD - means).mean()), share)

    def difference() -> Interval:
        return iqm_difference_interval(scores(), scores(), RESAMPLINGS)

    yield row("difference of interquartile means", 0.0, difference)

    def unlike() -> Interval:
        return improvement_interval(scores(), NARROW * rng.normal(size=(strata, runs)) + means)

    yield row(f"probability of improvement, deviations of 1 and {NARROW:g}", 0.5, unlike)
