"""Staleness diagnostics against numbers worked out by hand on tiny inputs."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gipo.learning.diagnostics import (
    effective_sample_size,
    explained_variance,
    loss_metrics,
    mean_interval,
    quantile,
    staleness,
)
from gipo.objectives import GIPO, Terms, policy_loss

torch.set_num_threads(1)

LN2, LN4 = math.log(2), math.log(4)


def diagnose(**overrides: Any) -> dict[str, float]:
    """Four transitions of one action dimension, aged 0, 2, 5 and 10 versions; ρ = 1, 2, ½, 4."""
    inputs: dict[str, Tensor] = {
        "log_ratio": torch.tensor([[0.0], [LN2], [-LN2], [LN4]]),
        "weight": torch.tensor([[1.0], [0.5], [0.5], [0.0005]]),
        "contribution": torch.tensor([[1.0], [1.0], [0.25], [0.0005]]),
        "advantage": torch.tensor([1.0, 1.0, -1.0, -2.0]),
        "age": torch.tensor([0, 2, 5, 10]),
        "used": torch.ones(4, 1, dtype=torch.bool),
    } | overrides
    return {name: value.item() for name, value in staleness(**inputs).items()}


def test_a_critic_is_not_judged_where_nothing_is_used() -> None:
    value, used = (
        torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 1.0]]),
        torch.tensor([[True] * 2, [False] * 2, [True] * 2]),
    )
    found = explained_variance(value, value, used)
    assert found.tolist() == [1.0, pytest.approx(math.nan, nan_ok=True), 0.0]


def test_every_number_by_hand() -> None:
    u = [1.0, 1.0, 0.25, 0.0005]
    assert diagnose() == pytest.approx(
        {
            "staleness/age_mean": 17 / 4,
            "staleness/age_p95": 10,
            "staleness/age_max": 10,
            "staleness/fresh_share": 2 / 4,
            "staleness/old_share": 1 / 4,
            "staleness/masked": 0,
            # x = 0, ln 2, −ln 2, 2·ln 2: mean ½·ln 2, variance (0 + 1 + 1 + 4)/4 − ¼ = 1.25 (ln 2)²
            "ratio/log_mean": LN2 / 2,
            "ratio/log_std": LN2 * math.sqrt(1.25),
            "ratio/log_abs_p95": LN4,
            "ratio/p99": 4,
            "ratio/max": 4,
            "weight/mean": 2.0005 / 4,
            "weight/min": 0.0005,
            "weight/suppressed": 1 / 4,
            # PPO has no gradient for ρ = 2, A > 0 and for ρ = ½, A < 0
            "weight/ppo_dead": 2 / 4,
            "contribution/mean": sum(u) / 4,
            "contribution/near_zero": 1 / 4,
            # |uA| = 1, 1, .25, .001, of which the last is old
            "contribution/old_share": 0.001 / 2.251,
            "ess/all": sum(u) ** 2 / (4 * sum(value**2 for value in u)),
            "ess/fresh": 1,
            "ess/middle": 1,
            "ess/old": 1,
        },
        rel=1e-5,
    )


def test_ages_and_weights_are_told_apart_at_their_edges() -> None:
    found = diagnose(
        log_ratio=torch.tensor([1.21, 1.19, 0.79, 0.81]).log().unsqueeze(-1),
        weight=torch.tensor([[0.0009], [0.0011], [0.009], [1.0]]),
        contribution=torch.tensor([[0.0009], [0.0011], [0.009], [1.0]]),
        advantage=torch.tensor([1.0, 1.0, -1.0, -1.0]),
        age=torch.tensor([2, 3, 9, 10]),
    )
    for name in ("staleness/fresh_share", "staleness/old_share", "weight/suppressed", "contribution/near_zero"):
        assert found[name] == 1 / 4
    assert found["weight/ppo_dead"] == 2 / 4  # 1.21 of a good action, .79 of a bad one
    assert found["ess/middle"] == pytest.approx((0.0011 + 0.009) ** 2 / (2 * (0.0011**2 + 0.009**2)))


def test_quantiles_of_ratios_are_those_that_are_named() -> None:
    rho = torch.arange(1, 201) / 100
    many = {name: torch.ones(200, 1) for name in ("weight", "contribution")} | {"advantage": torch.ones(200)}
    used = torch.ones(200, 1, dtype=torch.bool)
    found = diagnose(log_ratio=rho.log().unsqueeze(-1), age=torch.zeros(200), used=used, **many)
    assert found["ratio/p99"] == pytest.approx(1.98)
    assert found["ratio/log_abs_p95"] == pytest.approx(-math.log(0.11))  # of ten ratios |log ρ| is larger: .01 to .1


def test_metrics_of_the_loss_by_hand() -> None:
    x, left = torch.tensor([[-LN2], [-LN4], [9.0]]), torch.tensor([[LN2], [LN2], [9.0]]) - LN4
    weight, contribution = torch.tensor([[0.5], [0.0005], [9.0]]), torch.tensor([[1.0], [0.5], [9.0]])
    used = torch.tensor([[True], [True], [False]])
    found = loss_metrics(x, left, Terms(torch.zeros(3, 1), weight, contribution), used)
    # ρ = e^(x + left) = ¼, ⅛; (1 + ½)²/(2·(1 + ¼))
    expected = {
        "weight": 0.50050 / 2, "clip_fraction": 1 / 2, "ESS": 0.9, "kl_approx": 1.5 * LN2, "max_ratio": 0.25,
        "mean_ratio": 0.1875,
    }  # fmt: skip
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_masked_elements_are_counted_and_left_out() -> None:
    used = torch.tensor([[True], [True], [False], [False]])
    poisoned = torch.tensor([[0.0], [LN2], [math.nan], [math.inf]])
    metrics = diagnose(used=used, log_ratio=poisoned)
    assert metrics["staleness/masked"] == 2
    assert metrics["staleness/age_max"] == 2
    assert metrics["ratio/max"] == pytest.approx(2)
    assert metrics["ess/all"] == pytest.approx(1)
    # nobody is left in these buckets
    assert metrics["ess/middle"] == metrics["ess/old"] == 0
    assert all(math.isfinite(value) for value in metrics.values())


def test_samples_of_an_unknown_age_are_in_no_figure_by_age() -> None:
    known = diagnose()
    assert "staleness/unknown_share" not in known
    metrics = diagnose(age=torch.tensor([0.0, 2.0, math.nan, math.nan]))
    assert metrics["staleness/unknown_share"] == 0.5
    assert (metrics["staleness/age_mean"], metrics["staleness/age_max"], metrics["staleness/fresh_share"]) == (1, 2, 1)
    assert metrics["ess/middle"] == metrics["ess/old"] == metrics["contribution/old_share"] == 0
    assert metrics["ess/all"] == known["ess/all"]
    assert not any("age" in name for name in diagnose(age=torch.full((4,), math.nan)))


def test_nothing_used_leaves_only_the_count() -> None:
    assert diagnose(used=torch.zeros(4, 1, dtype=torch.bool)) == {"staleness/masked": 4}


def test_no_samples_at_all() -> None:
    empty = torch.zeros(0, 3)
    metrics = staleness(empty, empty, empty, torch.zeros(0), torch.zeros(0, dtype=torch.int64), empty.bool())
    assert {name: value.item() for name, value in metrics.items()} == {"staleness/masked": 0}


def test_all_weights_zero_is_no_division_by_zero() -> None:
    zero = torch.zeros(4, 1)
    metrics = diagnose(weight=zero, contribution=zero)
    assert metrics["ess/all"] == 0
    assert metrics["contribution/old_share"] == 0
    assert all(math.isfinite(value) for value in metrics.values())


def test_dimensions_count_one_by_one() -> None:
    # age and advantage are shared by the dimensions of a transition
    wide = {
        "log_ratio": torch.tensor([[0.0, LN2], [LN2, LN2]]),
        "weight": torch.ones(2, 2),
        "contribution": torch.ones(2, 2),
        "advantage": torch.tensor([1.0, -1.0]),
        "age": torch.tensor([0, 20]),
        "used": torch.tensor([[True, True], [False, True]]),
    }
    metrics = diagnose(**wide)
    assert metrics["staleness/age_mean"] == pytest.approx(20 / 3)
    assert metrics["staleness/masked"] == 1
    assert metrics["weight/ppo_dead"] == pytest.approx(1 / 3)
    assert metrics["contribution/old_share"] == pytest.approx(1 / 3)


def test_bucket_sizes_are_their_own() -> None:
    # fresh: u = 1, 0 of 2; old: u = 1, 1, 0, 0 of 4
    u = torch.tensor([1.0, 0, 1, 1, 0, 0]).unsqueeze(-1)
    metrics = diagnose(
        log_ratio=torch.zeros(6, 1),
        weight=u,
        contribution=u,
        advantage=torch.ones(6),
        age=torch.tensor([0, 2, 10, 11, 12, 13]),
        used=torch.ones(6, 1, dtype=torch.bool),
    )
    assert metrics["ess/fresh"] == pytest.approx(1 / 2)
    assert metrics["ess/old"] == pytest.approx(1 / 2)
    assert metrics["ess/middle"] == 0


def test_it_takes_what_policy_loss_returns() -> None:
    x = torch.tensor([[0.1, -math.inf], [2.0, -1.0]])
    advantage = torch.tensor([1.0, -1.0])
    result = policy_loss(GIPO(), x, advantage)
    metrics = staleness(x, result.weight, result.contribution, advantage, torch.tensor([0, 3]), result.used)
    assert metrics["staleness/masked"] == 1
    expected = (math.exp(-0.005) + math.exp(-2) + math.exp(-0.5)) / 3
    assert metrics["weight/mean"].item() == pytest.approx(expected)


# Effective sample size


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_effective_sample_size_limits(scale: float) -> None:
    count = 8
    assert effective_sample_size(torch.full((count,), scale)).item() == pytest.approx(1)
    one_hot = torch.zeros(count)
    one_hot[3] = scale
    assert effective_sample_size(one_hot).item() == pytest.approx(1 / count)
    half = torch.tensor([scale] * 4 + [0.0] * 4)
    assert effective_sample_size(half).item() == pytest.approx(1 / 2)


def test_effective_sample_size_of_nothing_but_zeros() -> None:
    assert effective_sample_size(torch.zeros(5)) == 0


def test_effective_sample_size_by_hand() -> None:
    # (1 + 2 + 3)² / (3·(1 + 4 + 9))
    assert effective_sample_size(torch.tensor([1.0, 2.0, 3.0])).item() == pytest.approx(36 / 42)


# Explained variance and quantiles


def test_explained_variance() -> None:
    target = torch.tensor([0.0, 1.0, 2.0, 3.0])
    # residual 0, all of it, ½·target (a quarter of the variance is left), 2·target; and a target that is constant
    values = torch.stack((target, torch.full((4,), 9.0), target / 2, -target, torch.ones(4)))
    targets = torch.stack((*[target] * 4, torch.ones(4)))
    everything = torch.ones(5, 4, dtype=torch.bool)
    assert explained_variance(values, targets, everything).tolist() == pytest.approx([1, 0, 0.75, -3, 0])
    some = everything.clone()
    values[:, 3], some[:, 3] = math.nan, False  # of what is left out nothing is read
    # the last but one: of residuals 0, 2, 4 the variance is 4 times that of 0, 1, 2
    assert explained_variance(values, targets, some).tolist() == pytest.approx([1, 0, 0.75, -3, 0])


@pytest.mark.parametrize(
    ("count", "q", "expected"),
    [(1, 0.95, 1), (4, 0.5, 2), (5, 0.5, 3), (20, 0.95, 19), (100, 0.99, 99), (10, 1.0, 10), (10, 0.0, 1)],
)
def test_quantile_is_the_smallest_element_that_covers_the_share(count: int, q: float, expected: float) -> None:
    values = torch.arange(1, count + 1).float()
    shuffled = values[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    assert quantile(shuffled, q) == expected


def test_quantile_has_no_size_limit() -> None:
    # torch.quantile refuses more than 2²⁴ elements
    assert quantile(torch.ones(2**24 + 1), 0.95) == 1


# Intervals


def test_mean_interval_by_hand() -> None:
    # deviation 1 of three: 2 ± 4.302653/√3
    assert mean_interval(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_one_sample_says_nothing_about_its_spread() -> None:
    assert mean_interval(torch.tensor([5.0])) == (5, -math.inf, math.inf)
