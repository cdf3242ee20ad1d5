"""How often intervals of few runs hold: what is counted, by hand, and that success rates are told apart."""

import numpy as np
import pytest

from gipo.commands.studies import interval_coverage as coverage


def test_an_interval_holds_where_the_truth_is_inside() -> None:
    row = coverage._row("of four", 2, 3, 0.5, [(0, 0.0, 0.4), (0, 0.5, 0.6), (0, 0.1, 0.9), (0, 0.6, 0.7)])
    assert (row["coverage"], row["draws"], row["nominal"]) == (0.5, 4, 0.95)
    assert row["width"] == pytest.approx((0.4 + 0.1 + 0.8 + 0.1) / 4)


def test_success_rates_of_few_tasks_hold_less_often_than_they_promise() -> None:
    few = coverage._of_success(3, 5, 150, np.random.default_rng(0))
    assert (few["strata"], few["runs"]) == (3, 5)
    assert 0.6 < few["coverage"] < 0.93  # type: ignore[operator]


def test_what_intervals_are_to_hold_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "_row", lambda figure, strata, runs, truth, intervals: {figure: truth})
    truth: dict[str, object] = {}
    for row in coverage._of_shape(3, 5, 1, np.random.default_rng(0)):
        truth |= row
    assert truth["probability of improvement, shift 1"] == pytest.approx(0.760250, abs=1e-6)  # Φ(1/√2)
    # of means 0, .5 and −.4: 1 − Φ(.5), ½ and 1 − Φ(.9)
    assert truth["share of runs above 0.5"] == pytest.approx((0.308538 + 0.5 + 0.184060) / 3, abs=1e-6)
    assert truth["difference of interquartile means"] == 0
    assert truth["probability of improvement, deviations of 1 and 0.1"] == 0.5


def test_a_probability_is_told_less_surely_where_the_sides_spread_unlike() -> None:
    """The page says so: of three runs a side the interval is then too narrow."""
    *_, row = coverage._of_shape(1, 3, 300, np.random.default_rng(0))
    assert 0.7 < row["coverage"] < 0.85  # type: ignore[operator]
