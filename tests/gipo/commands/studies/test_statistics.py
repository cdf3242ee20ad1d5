"""Statistics of few runs: hand numbers, the figures of rliable 1.2.0, and intervals that hold as often as they say."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm, t, ttest_ind

from gipo.commands.studies.statistics import (
    improvement_interval,
    interquartile_mean,
    iqm_difference_interval,
    iqm_interval,
    min_max,
    paired_interval,
    performance_profile,
    probability_of_improvement,
    share_interval,
)

OURS = np.array([[0.1, 0.5, 0.9, 0.3, 0.7], [0.2, 0.2, 0.8, 1.0, 0.6]])
THEIRS = np.array([[0.4, 0.5, 0.1, 0.3, 0.2], [0.2, 0.9, 0.8, 0.1, 0.6]])
THRESHOLDS = np.array([0, 0.25, 0.5, 0.75, 1.0])

SCORES = arrays(np.float64, (2, 5), elements=st.floats(-1e6, 1e6))


def test_interquartile_mean_by_hand() -> None:
    # 3, 4, 5, 6 of 1 … 8, whatever the outermost quarters are
    assert interquartile_mean(np.array([[8.0, 1, 6, 3], [2, 7, 4, 5]])) == 4.5
    assert interquartile_mean(np.array([[1e9, -1e9, 6, 3], [2, 7, 4, 5]])) == 4.5
    assert interquartile_mean(np.array([[1.0, 2, 6]])) == 3  # a quarter of three runs is none


def test_probability_of_improvement_by_hand() -> None:
    assert probability_of_improvement(np.array([[1.0, 3]]), np.array([[2.0, 2]])) == 0.5
    assert probability_of_improvement(np.array([[1.0, 3]]), np.array([[1.0, 2, 4]])) == (0.5 + 2) / 6
    # what is equal is a tie, whatever the last bit says: .3 gained is .3 gained
    assert probability_of_improvement(np.array([[0.96 - 0.66]]), np.array([[0.92 - 0.62]])) == 0.5
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


def test_the_interval_of_a_mean_of_one_stratum_is_students() -> None:
    # below four runs the interquartile mean is the mean: 2 ± t(2)·s/√3, t(2) = 4.302653, s = 1
    half = 4.302653 / 3**0.5
    assert iqm_interval(np.array([[1.0, 2.0, 3.0]])) == pytest.approx((2, 2 - half, 2 + half), abs=0.05)
    assert iqm_interval(np.array([[1.0], [2.0]])) == (1.5, -np.inf, np.inf)  # one run says nothing of its spread


def test_the_interval_of_a_difference_of_means_of_one_stratum_is_welchs() -> None:
    ours, theirs = np.array([[1.0, 2.0, 4.0]]), np.array([[0.0, 5.0, 5.5]])  # of three runs none is left out
    middle, low, high = iqm_difference_interval(ours, theirs, draws=200_000)
    known = ttest_ind(ours[0], theirs[0], equal_var=False).confidence_interval(0.95)
    assert middle == pytest.approx(ours.mean() - theirs.mean())
    assert (low, high) == pytest.approx((known.low, known.high), rel=0.02)
    assert iqm_difference_interval(ours[:, :1], theirs)[1:] == (-math.inf, math.inf)
    assert iqm_difference_interval(ours * 0 + 1, theirs * 0) == (1.0, 1.0, 1.0)


def test_the_intervals_of_two_strata_of_two_runs_by_hand() -> None:
    # of resampled ones k ~ Bin(4, ½), of which the middle two are 0, 0, ½, 1, 1: variance 5/32, times R/(R − 1) = 2
    scores = np.array([[0.0, 1.0], [0.0, 1.0]])
    # t of S·(R − 1) = 2 degrees of freedom, and of 4 where two such are compared
    assert iqm_interval(scores)[2] - 0.5 == pytest.approx(4.302653 * (5 / 16) ** 0.5, rel=0.03)
    assert iqm_difference_interval(scores, scores)[2] == pytest.approx(2.776445 * (5 / 8) ** 0.5, rel=0.03)


def test_the_same_scores_have_the_same_interval() -> None:
    assert iqm_interval(OURS, draws=50) == iqm_interval(OURS, draws=50)
    assert iqm_difference_interval(OURS, THEIRS, draws=50) == iqm_difference_interval(OURS, THEIRS, draws=50)


def test_runs_are_resampled_within_their_stratum() -> None:
    assert iqm_interval(np.array([[0.0, 0, 0], [1, 1, 1]])) == (0.5, 0.5, 0.5)


def test_the_interval_of_an_improvement_is_a_score_interval() -> None:
    # at its ends the difference is z standard deviations: N = 5, P(1−P)(1 + 4((1−P)/(2−P) + P/(1+P)))/25 over 2 strata
    found, *ends = improvement_interval(OURS, THEIRS)
    assert found == probability_of_improvement(OURS, THEIRS)
    for end in ends:
        variance = end * (1 - end) * (1 + 4 * ((1 - end) / (2 - end) + end / (1 + end))) / 50
        assert abs(found - end) == pytest.approx(1.959964 * variance**0.5, abs=2e-3)
    # all wins are no certainty, and both sides mirror each other
    _, low, high = improvement_interval(OURS + 9, THEIRS)
    assert high == 1
    assert 0.75 < low < 0.85
    assert improvement_interval(THEIRS, OURS + 9) == pytest.approx((0, 1 - high, 1 - low))


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = share_interval(np.array([0.0, 0.5, 1.0]), 10)
    assert low == pytest.approx([0.0, 0.2366, 0.7225], abs=1e-4)
    assert high == pytest.approx([0.2775, 0.7634, 1.0], abs=1e-4)


@pytest.mark.parametrize(("strata", "runs"), [(3, 5), (1, 5)])
def test_intervals_hold_about_as_often_as_they_say(strata: int, runs: int) -> None:
    # percentiles of a bootstrap hold in 90 to 92 % of such studies, and in 57 % where ours nearly always win
    rng = np.random.default_rng(5)
    scores = rng.normal(size=(500, 2, strata, runs))
    means = np.array([low <= 0 <= high for _, low, high in (iqm_interval(x[0], draws=300) for x in scores)])
    truth = norm.cdf(3 / 2**0.5)
    wins = np.array([low <= truth <= high for _, low, high in (improvement_interval(x[0] + 3, x[1]) for x in scores)])
    assert 0.935 <= means.mean() <= 0.99
    assert 0.94 <= wins.mean() <= 0.995


def test_of_three_runs_the_interval_is_students() -> None:
    """Nothing is left out of their mean, and no draw decides on which side of 0 its end is."""
    gains = np.array([0.18, 0.14, 0.30])
    assert iqm_interval(gains[None]) == pytest.approx(paired_interval(gains))
    assert iqm_interval(gains[None])[1] == pytest.approx(-0.000179, abs=1e-6)


def test_of_few_runs_every_resampling_is_known_and_no_seed_decides() -> None:
    """AWR's gains from the oldest logs across delay and friction: draws had put the end of the interval below 0."""
    gains = np.array([-0.12, -0.1, -0.34, -0.18, -0.36])
    every = np.sort(list(product(gains, repeat=5)))[:, 1:4].mean(1)
    half = t.ppf(0.975, 4) * every.std() * (5 / 4) ** 0.5
    middle, low, high = iqm_interval(gains[None])
    assert (low, middle, high) == pytest.approx((middle - half, -0.213333, middle + half), abs=1e-6)
    assert high > 0


def test_shares_that_were_logged_in_float32_are_equal_where_they_are() -> None:
    after, before = np.float32([0.96, 0.92]), np.float32([0.66, 0.62])
    ours, theirs = ((after - before).astype(float)[i] for i in (0, 1))
    assert ours != theirs
    assert probability_of_improvement(np.array([[ours]]), np.array([[theirs]])) == 0.5
    assert probability_of_improvement(np.array([[0.32]]), np.array([[0.3]])) == 1  # an episode of fifty


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
