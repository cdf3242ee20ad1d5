"""The baseline predicts what can be predicted, and looks neither at the episode that it is used for nor at chance."""

import numpy as np
import pytest

from gipo.commands.estimate import baseline
from gipo.commands.estimate.baseline import fitted


def test_it_predicts_other_groups() -> None:
    draw = np.random.default_rng(0)
    seen = draw.normal(size=(4_000, 3))
    value = 100 + 5 * seen[:, 0] + 3 * np.sin(2 * seen[:, 1]) + 0.1 * draw.normal(size=4_000)
    found, explained = fitted(seen, np.column_stack((value, -2 * value)), np.repeat(np.arange(40), 100))
    assert explained == pytest.approx(np.full(2, explained[0]))
    assert explained[0] > 0.9
    assert np.abs(found[:, 0] - value).mean() < 1.5
    assert found[:, 1] == pytest.approx(-2 * found[:, 0])


def test_how_many_rows_are_in_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(4)
    seen, value, group = draw.normal(size=(100, 3)), draw.normal(size=(100, 1)), np.arange(100) % 9
    found = fitted(seen, value, group)[0]
    monkeypatch.setattr(baseline, "ROWS", 7)
    assert fitted(seen, value, group)[0] == pytest.approx(found, abs=1e-9)


def test_it_is_the_least_squares_with_a_ridge() -> None:
    # two groups: the second is predicted by a regression on the first alone, and the other way round
    seen, value = np.array([[0.0], [1.0], [2.0], [5.0]]), np.array([[1.0], [3.0], [2.0], [9.0]])
    group = np.array([0, 0, 0, 1])
    features = baseline._Features(seen, 0).of(seen)
    centred, ridge = value[:3] - 2, baseline.RIDGE * 3 * np.eye(features.shape[1])
    weight = np.linalg.solve(features[:3].T @ features[:3] + ridge, features[:3].T @ centred)
    assert fitted(seen, value, group)[0][3] == pytest.approx(2 + features[3] @ weight)


def test_a_value_does_not_predict_itself() -> None:
    draw = np.random.default_rng(1)
    seen, value, group = draw.normal(size=(200, 2)), draw.normal(size=(200, 1)), np.repeat(np.arange(10), 20)
    found, _ = fitted(seen, value, group)
    value[group == 3] += 1_000
    again, _ = fitted(seen, value, group)
    assert again[group == 3] == pytest.approx(found[group == 3], abs=1e-9)
    assert not np.allclose(found[group == 4], again[group == 4])


def test_what_cannot_be_predicted_explains_nothing() -> None:
    draw = np.random.default_rng(2)
    _, explained = fitted(draw.normal(size=(500, 2)), draw.normal(size=(500, 1)), np.repeat(np.arange(50), 10))
    assert explained[0] < 0.1


@pytest.mark.parametrize("groups", [1, 2, 7])
def test_few_groups_and_columns_that_never_move(groups: int) -> None:
    seen = np.column_stack((np.ones(70), np.arange(70.0)))
    found, explained = fitted(seen, np.full((70, 1), 4.0), np.arange(70) % groups)
    assert np.isfinite(found).all()
    assert explained.tolist() == [0]
    assert groups == 1 or found == pytest.approx(np.full((70, 1), 4.0))


def test_it_is_the_same_each_time() -> None:
    draw = np.random.default_rng(3)
    seen, value, group = draw.normal(size=(60, 4)), draw.normal(size=(60, 1)), np.arange(60) % 6
    assert np.array_equal(fitted(seen, value, group)[0], fitted(seen, value, group)[0])
