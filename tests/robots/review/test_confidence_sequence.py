"""An interval that may be looked at after every number: how often it fails at any look, how soon it tells."""

import numpy as np
import pytest

from robots.review.confidence_sequence import confidence_sequence


@pytest.mark.parametrize("mean", [-0.6, 0.0, 0.3])
def test_it_holds_the_mean_at_every_look(mean: float) -> None:
    """Differences of two successes: −1, 0 or 1."""
    draw, missed, tries = np.random.default_rng(0), 0, 200
    chances = np.array([0.35 - mean / 2, 0.3, 0.35 + mean / 2]).clip(0)
    for _ in range(tries):
        found = confidence_sequence(draw.choice([-1.0, 0.0, 1.0], 100, p=chances / chances.sum()), -1, 1)
        truth = (chances[2] - chances[0]) / chances.sum()
        missed += bool(((found[:, 0] > truth) | (found[:, 1] < truth)).any())
    assert missed / tries <= 0.05


def test_an_interval_for_one_look_would_not() -> None:
    """Which is why there is this one: 1.96 deviations, looked at from the tenth number on, miss far more often."""
    draw, missed, tries = np.random.default_rng(1), 0, 300
    for _ in range(tries):
        x = draw.choice([-1.0, 1.0], 200)
        count = np.arange(1, 201)
        missed += bool((np.abs(x.cumsum() / count) > 1.96 / np.sqrt(count))[10:].any())
    assert missed / tries > 0.2


def test_it_never_widens_and_closes_in() -> None:
    found = confidence_sequence(np.random.default_rng(2).uniform(0.2, 0.6, 2_000), 0, 1)
    assert (np.diff(found[:, 0]) >= 0).all()
    assert (np.diff(found[:, 1]) <= 0).all()
    assert found[-1, 0] < 0.4 < found[-1, 1]
    assert found[-1, 1] - found[-1, 0] < 0.05


def test_it_tells_a_large_difference_in_a_dozen_pairs() -> None:
    found = confidence_sequence(np.ones(30), -1, 1)
    first = int(np.argmax(found[:, 0] > 0))
    assert found[-1, 0] > 0
    assert 5 <= first + 1 <= 14


def test_the_unit_changes_nothing() -> None:
    x = np.random.default_rng(3).random(50)
    assert confidence_sequence(10 * x - 3, -3, 7) == pytest.approx(10 * confidence_sequence(x, 0, 1) - 3)


def test_bets_by_hand() -> None:
    # Of one number 1 in [0, 1], α = ½: λ = √(2·log 4/(¼·log 2)) = 4, so that ½/m is bet on more where m > 1/8, and
    # ½/(1 − m) on less, which is lost. ½·(1 + ½·(1 − m)/m) + ½·½ is 1/α = 2 at m = 1/6.
    ((low, high),) = confidence_sequence(np.ones(1), 0, 1, alpha=0.5)
    assert low == pytest.approx(1 / 6, abs=1 / 2_000 + 1e-9)
    assert high == 1


def test_none_at_all() -> None:
    assert confidence_sequence(np.empty(0), -1, 1).shape == (0, 2)


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan])
def test_a_number_beyond_its_bounds_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        confidence_sequence(np.array([0.5, value]), 0, 1)
