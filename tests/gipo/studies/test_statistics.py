"""Statistics of few runs: hand numbers, the figures of rliable 1.2.0, and what a bootstrap must and must not mix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gipo.studies.statistics import (
    bootstrap_interval,
    improvement_interval,
    interquartile_mean,
    min_max,
    performance_profile,
    probability_of_improvement,
)

OURS = np.array([[0.1, 0.5, 0.9, 0.3, 0.7], [0.2, 0.2, 0.8, 1.0, 0.6]])
THEIRS = np.array([[0.4, 0.5, 0.1, 0.3, 0.2], [0.2, 0.9, 0.8, 0.1, 0.6]])
THRESHOLDS = np.array([0, 0.25, 0.5, 0.75, 1.0])

SCORES = arrays(np.float64, (2, 5), elements=st.floats(-1e6, 1e6))


def mean(scores: np.ndarray) -> np.ndarray:
    return scores.mean((-2, -1))


def test_interquartile_mean_by_hand() -> None:
    # 3, 4, 5, 6 of 1 … 8, whatever the outermost quarters are
    assert interquartile_mean(np.array([[8.0, 1, 6, 3], [2, 7, 4, 5]])) == 4.5
    assert interquartile_mean(np.array([[1e9, -1e9, 6, 3], [2, 7, 4, 5]])) == 4.5
    assert interquartile_mean(np.array([[1.0, 2, 6]])) == 3  # a quarter of three runs is none


def test_probability_of_improvement_by_hand() -> None:
    assert probability_of_improvement(np.array([[1.0, 3]]), np.array([[2.0, 2]])) == 0.5
    assert probability_of_improvement(np.array([[1.0, 3]]), np.array([[1.0, 2, 4]])) == (0.5 + 2) / 6
    # the mean of the strata, 1 and ½, not of their pairs: runs of different tasks are not compared
    assert probability_of_improvement(np.array([[1.0], [9]]), np.array([[0.0, 0], [9, 9]])) == 0.75


def test_performance_profile_by_hand() -> None:
    profile = performance_profile(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([-1.0, 0.0, 0.4, 0.5, 1.0]))
    assert profile.tolist() == [1.0, 0.75, 0.75, 0.25, 0.0]


def test_min_max_is_within_each_stratum() -> None:
    assert min_max(np.array([[-10.0, 0, 10], [3, 3, 3]])).tolist() == [[0, 0.5, 1], [0, 0, 0]]


def test_figures_are_those_of_rliable() -> None:
    assert interquartile_mean(OURS) == pytest.approx(0.5166666666666666, abs=1e-15)
    assert probability_of_improvement(OURS, THEIRS) == pytest.approx(0.63, abs=1e-15)
    assert performance_profile(OURS, THRESHOLDS) == pytest.approx([1.0, 0.7, 0.5, 0.3, 0.0], abs=1e-15)
    # its intervals from 20 000 draws of its own
    assert bootstrap_interval(OURS, interquartile_mean) == pytest.approx((0.28333333, 0.76666667), abs=0.02)
    assert improvement_interval(OURS, THEIRS) == pytest.approx((0.37, 0.86), abs=0.02)
    low, high = bootstrap_interval(OURS, lambda drawn: performance_profile(drawn, THRESHOLDS))
    assert low == pytest.approx([1.0, 0.4, 0.2, 0.1, 0.0], abs=0.1)
    assert high == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.0], abs=0.1)


def test_a_bootstrap_has_the_quantiles_of_all_resamplings() -> None:
    # the mean of two draws of {0, 1}: 0, ½, 1 with probability ¼, ½, ¼
    scores = np.array([[0.0, 1.0]])
    assert bootstrap_interval(scores, mean, level=0.4) == (0.5, 0.5)
    assert bootstrap_interval(scores, mean, level=0.6) == (0.0, 1.0)


def test_a_bootstrap_never_takes_a_run_to_another_stratum() -> None:
    assert bootstrap_interval(np.array([[0.0, 0, 0], [1, 1, 1]]), mean) == (0.5, 0.5)


def test_the_two_sides_of_an_improvement_are_resampled_independently() -> None:
    # P(all of ours 0, all of theirs 1) = 1/16; were they drawn together it would always be ½
    scores = np.array([[0.0, 1.0]])
    assert improvement_interval(scores, scores, level=0.9) == (0.0, 1.0)
    assert improvement_interval(scores, scores, level=0.2) == (0.5, 0.5)


@given(SCORES, SCORES)
def test_what_holds_for_all_scores(ours: np.ndarray, theirs: np.ndarray) -> None:
    rounding = 1e-9 * (1 + np.abs(ours).max())
    assert ours.min() - rounding <= interquartile_mean(ours) <= ours.max() + rounding
    one, other = probability_of_improvement(ours, theirs), probability_of_improvement(theirs, ours)
    assert one + other == pytest.approx(1)
    profile = performance_profile(ours, np.linspace(-1e6, 1e6, 9))
    assert (np.diff(profile) <= 0).all()
    assert profile[-1] == 0
    both = np.stack([ours, theirs])
    assert interquartile_mean(both).tolist() == [interquartile_mean(ours), interquartile_mean(theirs)]
    assert probability_of_improvement(both, both[::-1]).tolist() == [one, other]
    normalised = min_max(ours)
    assert ((normalised >= 0) & (normalised <= 1)).all()
