"""Statistics of few runs, against hand numbers, scipy and their own symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from gipo.commands.studies.statistics import interquartile_mean, probability_of_improvement

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 9))
SCORES = SHAPES.flatmap(lambda shape: arrays(float, shape, elements=st.integers(-1000, 1000)))  # sums are exact


def test_the_interquartile_mean_by_hand() -> None:
    assert interquartile_mean(np.array([[8.0, 1, 3, 2, 100, 5, -50, 4]])) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([[1.0, 2, 3, 4, 90]])) == 3  # a quarter of five is cut down to one


@settings(deadline=None)
@given(SCORES)
def test_the_interquartile_mean_is_scipys_and_vectorised(scores: np.ndarray) -> None:
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))
    assert scores.min() - 1e-6 <= interquartile_mean(scores) <= scores.max() + 1e-6
    assert interquartile_mean(scores[::-1, ::-1]) == pytest.approx(interquartile_mean(scores), abs=1e-6)
    many = np.stack([scores, 2 * scores, -scores])
    assert interquartile_mean(many) == pytest.approx([float(interquartile_mean(each)) for each in many])


def test_the_probability_of_improvement_by_hand() -> None:
    # stratum 1: 1 > 0, 1 = 1, 2 > 0, 2 > 1 → 3.5 of 4; stratum 2: never
    assert probability_of_improvement(np.array([[1, 2], [0, 0]]), np.array([[0, 1], [5, 6]])) == 3.5 / 8


@settings(deadline=None)
@given(arrays(float, (3, 4), elements=st.integers(0, 5)), arrays(float, (3, 6), elements=st.integers(0, 5)))
def test_the_probability_of_improvement_is_mann_whitneys(ours: np.ndarray, theirs: np.ndarray) -> None:
    found = probability_of_improvement(ours, theirs)
    shares = [stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(ours, theirs, strict=True)]
    assert found == pytest.approx(np.mean(shares))
    assert found + probability_of_improvement(theirs, ours) == pytest.approx(1)
