"""The baseline predicts what can be predicted, and looks neither at the episode that it is used for nor at chance."""

import numpy as np
import pytest

from gipo.commands.estimate.baseline import fitted


def test_it_predicts_other_groups() -> None:
    draw = np.random.default_rng(0)
    seen = draw.normal(size=(4_000, 3))
    value = 100 + 5 * seen[:, 0] + 3 * np.sin(2 * seen[:, 1]) + 0.1 * draw.normal(size=4_000)
    found, explained = fitted(seen, value, np.repeat(np.arange(40), 100))
    assert explained > 0.9
    assert np.abs(found - value).mean() < 1.5


def test_a_value_does_not_predict_itself() -> None:
    draw = np.random.default_rng(1)
    seen, value, group = draw.normal(size=(200, 2)), draw.normal(size=200), np.repeat(np.arange(10), 20)
    found, _ = fitted(seen, value, group)
    value[group == 3] += 1_000
    again, _ = fitted(seen, value, group)
    assert np.array_equal(found[group == 3], again[group == 3])
    assert not np.allclose(found[group == 4], again[group == 4])


def test_what_cannot_be_predicted_explains_nothing() -> None:
    draw = np.random.default_rng(2)
    _, explained = fitted(draw.normal(size=(500, 2)), draw.normal(size=500), np.repeat(np.arange(50), 10))
    assert explained < 0.1


@pytest.mark.parametrize("groups", [1, 2, 7])
def test_few_groups_and_columns_that_never_move(groups: int) -> None:
    seen = np.column_stack((np.ones(70), np.arange(70.0)))
    found, explained = fitted(seen, np.full(70, 4.0), np.arange(70) % groups)
    assert np.isfinite(found).all()
    assert explained == 0
    assert groups == 1 or found == pytest.approx(np.full(70, 4.0))


def test_it_is_the_same_each_time() -> None:
    draw = np.random.default_rng(3)
    seen, value, group = draw.normal(size=(60, 4)), draw.normal(size=60), np.arange(60) % 6
    assert np.array_equal(fitted(seen, value, group)[0], fitted(seen, value, group)[0])
