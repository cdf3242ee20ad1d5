"""The GridWorld study against an independent enumeration with textbook formulas, and against closed forms."""

import argparse
import csv
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gipo.commands.studies import gridworld
from gipo.commands.studies.gradients.estimators import ESTIMATORS, SAPOS, moments, true_gradient
from gipo.commands.studies.gradients.mdp import TARGETS, advantages, behaviours, cells, values


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gridworld")
    gridworld.run(argparse.Namespace(out=out))
    return out


@pytest.fixture(scope="module")
def result() -> gridworld.Study:
    return gridworld.study()


# Independent: plain Python, the coefficient c(ρ, A) of each estimator as its paper writes it, no autograd.


def sapo(tau_neg: float) -> Callable[[float, float], float]:
    def coefficient(rho: float, a: float) -> float:
        tau = 1.0 if a > 0 else tau_neg
        p = 1 / (1 + math.exp(-tau * (rho - 1)))
        return 4 * p * (1 - p) * rho

    return coefficient


def ppo(rho: float, a: float) -> float:
    return 0.0 if (a > 0 and rho > 1.2) or (a < 0 and rho < 0.8) else rho


def aspo(rho: float, a: float) -> float:
    if a > 0:
        return 0.0 if rho > 1.2 else min(1 / rho, 3.0)
    return 0.0 if rho > 3.0 else ppo(rho, a)


def gipo(sigma: float) -> Callable[[float, float], float]:
    return lambda rho, a: rho * math.exp(-(math.log(rho) ** 2) / (2 * sigma**2))


def away(rho: float, a: float) -> bool:
    return (rho > 1 and a > 0) or (rho < 1 and a < 0)


def vespo(rho: float, a: float) -> float:
    k, rate = (2, 3) if a > 0 else (3, 2)
    return math.exp(rate) * rho**k * math.exp(-rate * rho)


def geometric(low: float, high: float) -> Callable[[float, float], float]:
    """GSPO and GMPO of one dimension: PPO with another clip."""
    return lambda rho, a: 0.0 if (a > 0 and rho > high) or (a < 0 and rho < low) else rho


def decoupled(rho: float, a: float, age: int = 16) -> float:
    return ppo(rho ** (1 / age), a) and (rho if rho ** (1 - 1 / age) <= 5 else 0.0)


def by_age(age: int, outward: bool) -> Callable[[float, float], float]:
    variance = 0.09 + 0.09 * age

    def coefficient(rho: float, a: float) -> float:
        if outward and not away(rho, a):
            return min(rho, math.exp(variance / 2))
        return rho * math.exp(-(math.log(rho) ** 2) / (2 * variance))

    return coefficient


def dppo(divergence: Callable[[float, float], float], delta: float) -> Callable[[float, float, float], float]:
    return lambda rho, a, mu: 0.0 if away(rho, a) and divergence(rho * mu, mu) > delta else min(rho, 20.0)


def binary_kl(pi: float, mu: float) -> float:
    return mu * math.log(mu / pi) + (1 - mu) * math.log((1 - mu) / (1 - pi))


AGES = (0, 1, 4, 16)
COEFFICIENTS = {
    "noclip": lambda rho, a: rho, "ppo": ppo, "sapo-1.05": sapo(1.05), "sapo-2.0": sapo(2.0), "aspo": aspo,
    "tis": lambda rho, a: min(rho, 2.0), "mis": lambda rho, a: rho if 0.5 - 1e-9 < rho <= 2.0 else 0.0, "m2po": None,
    "vespo": vespo, "dppo-tv": dppo(lambda pi, mu: abs(pi - mu), 0.2), "dppo-kl": dppo(binary_kl, 0.05),
    "gspo": geometric(1 - 3e-4, 1 + 4e-4), "gmpo": geometric(math.exp(-0.4), math.exp(0.4)),
    **{f"gipo-{sigma}": gipo(sigma) for sigma in (0.1, 0.3, 0.5, 1.0, 2.0)},
    "decoupled-16": decoupled, **{f"age-{age}": by_age(age, False) for age in AGES},
    **{f"outward-{age}": by_age(age, True) for age in AGES},
}  # fmt: skip


def m2po(rhos: list[float], advantages: list[float], mu: list[float]) -> list[float]:
    """Of a batch without end: action after action leaves, by x², until the mean x² of those that lead away is .04."""
    left = [i for i in range(4) if away(rhos[i], advantages[i])]
    while left and sum(mu[i] * math.log(rhos[i]) ** 2 for i in left) / sum(mu[i] for i in left) > 0.04:
        worst = max(math.log(rhos[i]) ** 2 for i in left)
        left = [i for i in left if math.log(rhos[i]) ** 2 < worst - 1e-9]
    return [rhos[i] if i in left or not away(rhos[i], advantages[i]) else 0.0 for i in range(4)]


def coefficients(name: str, rhos: list[float], advantages: list[float], mu: list[float]) -> list[float]:
    if name == "m2po":
        return m2po(rhos, advantages, mu)
    more = [mu] if name.startswith("dppo") else []
    return [COEFFICIENTS[name](*each) for each in zip(rhos, advantages, *more, strict=True)]


PI = {
    "PI-1": [[0.2, 0.3, 0.2, 0.3], [0.15, 0.45, 0.25, 0.15], [0.15, 0.15, 0.25, 0.45]],
    "PI-2": [[0.1, 0.4, 0.1, 0.4], [0.1, 0.6, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]],
    "PI-3": [[0.05, 0.45, 0.05, 0.45], [0.05, 0.75, 0.1, 0.1], [0.05, 0.1, 0.1, 0.75]],
}
E = math.e
R, DOWN = [1 / (3 + E)] * 3 + [E / (3 + E)], [1 / (3 + E), E / (3 + E), 1 / (3 + E), 1 / (3 + E)]
N1, N2, N3 = [0.30, 0.20, 0.30, 0.20], [0.25, 0.30, 0.20, 0.25], [0.20, 0.35, 0.20, 0.25]
N4, N5 = [0.32, 0.18, 0.28, 0.22], [0.12, 0.38, 0.12, 0.38]


def behaviour_in_s0(name: str, pi: list[float]) -> list[float]:
    mixture = {
        "A": lambda i: 0.25,
        "B": lambda i: 0.4 * 0.25 + 0.3 * R[i] + 0.3 * DOWN[i],
        "C": lambda i: 0.2 * 0.25 + 0.4 * R[i] + 0.4 * DOWN[i],
        "D": lambda i: pi[i],
        "E": lambda i: 0.45 * N1[i] + 0.35 * N4[i] + 0.2 * 0.25,
        "F": lambda i: 0.45 * N2[i] + 0.35 * N5[i] + 0.2 * 0.25,
        "G": lambda i: 0.4 * N3[i] + 0.3 * N4[i] + 0.3 * N5[i],
    }[name]
    return [mixture(i) for i in range(4)]


@cache
def evaluated(target: str) -> list[float]:
    """V by sweeping Bellman's equation until nothing moves."""
    pi = PI[target]
    following = {0: (0, 2, 0, 1), 1: (1, 3, 0, 1), 2: (0, 2, 2, 3)}
    v = [0.0] * 4
    for _ in range(2000):
        v = [sum(pi[s][a] * (-1 + 0.9 * v[following[s][a]]) for a in range(4)) for s in range(3)] + [0.0]
    return v


def independent(target: str, behaviour: str, estimator: str) -> dict[str, float]:
    pi, mu = PI[target][0], behaviour_in_s0(behaviour, PI[target][0])
    v = evaluated(target)
    advantage = [-1 + 0.9 * v[s] - v[0] for s in (0, 2, 0, 1)]
    moment = {}
    for name in {estimator, "noclip"}:
        c = coefficients(name, [p / m for p, m in zip(pi, mu, strict=True)], advantage, mu)
        g = [c[a] * advantage[a] * ((a == 3) - pi[3]) for a in range(4)]
        mean = sum(m * x for m, x in zip(mu, g, strict=True))
        moment[name] = mean, sum(m * (x - mean) ** 2 for m, x in zip(mu, g, strict=True))
    mean, variance = moment[estimator]
    bias = abs(mean - moment["noclip"][0])
    return {"mean": mean, "bias": bias, "variance": variance, "mse": bias**2 + variance}


def test_every_row_agrees_with_an_independent_computation(folder: Path) -> None:
    with open(folder / "gridworld.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["target", "behaviour", "estimator", "mean", "bias", "variance", "mse"]
    expected = [(t, b, e) for t in PI for b in "ABCDEFG" for e in COEFFICIENTS]
    assert [(row["target"], row["behaviour"], row["estimator"]) for row in rows] == expected
    for row in rows:
        for name, value in independent(row["target"], row["behaviour"], row["estimator"]).items():
            assert float(row[name]) == pytest.approx(value, rel=1e-9, abs=1e-12), (row, name)


def test_values_of_the_first_target() -> None:
    assert values(TARGETS["PI-1"])[0] == pytest.approx(-3.584711, abs=5e-7)
    # a policy that always goes right, then down: two steps
    direct = np.array([[0, 0, 0, 1.0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
    assert values(direct).tolist() == pytest.approx([-1.9, -1.0, -1.0])


@pytest.mark.parametrize("target", TARGETS)
def test_advantages_average_to_zero_and_policies_to_one(target: str) -> None:
    pi = TARGETS[target]
    assert (pi * advantages(pi)).sum(1).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    found = behaviours(pi)
    assert "".join(found) == "ABCDEFG"
    for mu in found.values():
        assert mu.shape == pi.shape
        assert mu.sum(1).tolist() == pytest.approx([1, 1, 1])


def test_no_clip_is_the_policy_gradient_of_the_softmax() -> None:
    # ∂J/∂θ(right) = Σ π(a)·A(a)·(1[a = right] − π(right)) = π(right)·A(right), whatever the behaviour
    grid = cells()
    for (target, _), gradient in zip(grid.names, true_gradient(grid), strict=True):
        pi = TARGETS[target]
        assert gradient == pytest.approx(pi[0, 3] * advantages(pi)[0, 3], rel=1e-12)


def test_on_policy_all_estimators_are_the_same(result: gridworld.Study) -> None:
    for cell, (_, behaviour) in enumerate(result.cells.names):
        if behaviour == "D":
            assert {round(float(found.variance[cell]), 14) for found in result.found.values()} == {
                round(float(result.found["noclip"].variance[cell]), 14)
            }
            assert max(found.bias[cell] for found in result.found.values()) < 1e-15


def test_error_of_a_mean_keeps_the_bias_and_divides_the_variance(result: gridworld.Study) -> None:
    found = result.found["gipo-0.5"]
    assert found.mse(100).tolist() == pytest.approx((found.bias**2 + found.variance / 100).tolist())


def test_an_estimator_that_is_always_zero_is_not_ranked(result: gridworld.Study) -> None:
    cell = result.cells.names.index(("PI-2", "E"))
    assert result.found["ppo"].zero[cell]
    assert result.found["ppo"].variance[cell] == 0  # so it would have the lowest error of a single sample
    assert gridworld.lowest(result, cell, 1, {"ppo": None, "noclip": None}) == "noclip"


def test_sample_tables_have_every_row(folder: Path) -> None:
    with open(folder / "gridworld_samples.csv") as file:
        samples = list(csv.DictReader(file))
    assert list(samples[0]) == ["target", "behaviour", "samples", "estimator", "mse"]
    assert len(samples) == 21 * 4 * len(COEFFICIENTS)
    with open(folder / "gridworld_best.csv") as file:
        best = list(csv.DictReader(file))
    assert len(best) == 18 * 4
    error = {
        tuple(row[k] for k in ("target", "behaviour", "samples", "estimator")): float(row["mse"]) for row in samples
    }
    for row in best:
        key = (row["target"], row["behaviour"], row["samples"])
        assert float(row["best_sigma_mse"]) == min(error[(*key, f"gipo-{s}")] for s in (0.1, 0.3, 0.5, 1.0, 2.0))
        assert float(row["best_estimator_mse"]) == error[(*key, row["best_estimator"])]
        assert float(row["best_estimator_mse"]) <= float(row["best_sigma_mse"])


def test_the_best_sigma_never_falls_as_samples_grow(result: gridworld.Study) -> None:
    sigmas = np.array([row["best_sigma"] for row in gridworld.best_rows(result)], dtype=float).reshape(-1, 4)
    assert (np.diff(sigmas, axis=1) >= 0).all()
    assert (sigmas[:, 0] < sigmas[:, -1]).all()


def test_dominance_by_hand(result: gridworld.Study) -> None:
    found = result.found["sapo-2.0"]
    better = found._replace(variance=found.variance * 0.9)
    assert gridworld.dominates(better, found).all()
    assert not gridworld.dominates(found, better).any()
    assert not gridworld.dominates(found, found).any()
    worse_bias = better._replace(bias=found.bias + 1.0)
    assert not gridworld.dominates(worse_bias, found).any()


def section(words: str, tau: str) -> list[str]:
    return words.partition(f"## SAPO with τ₋ = {tau}\n")[2].partition("\n## ")[0].splitlines()


def line_of(words: str, tau: str, start: str) -> str:
    (line,) = [line for line in section(words, tau) if line.startswith(start)]
    return line


def test_the_report_names_where_gipo_does_not_dominate(folder: Path, result: gridworld.Study) -> None:
    words = (folder / "gridworld.md").read_text()
    line = line_of(words, "2.0", "- **GIPO does not dominate it**")
    for cell in ("PI-2/E", *(f"PI-3/{behaviour}" for behaviour in "ABCEFG")):
        assert cell in line
    assert "PI-1" not in line
    # independently: at no σ of the paper is SAPO met in both
    for target, behaviour in [("PI-2", "E"), ("PI-3", "A")]:
        theirs = independent(target, behaviour, "sapo-2.0")
        for sigma in (0.1, 0.3, 0.5, 1.0, 2.0):
            ours = independent(target, behaviour, f"gipo-{sigma}")
            assert ours["bias"] > theirs["bias"] or ours["variance"] > theirs["variance"]
    assert "-3.584711" in words
    # the text follows the numbers
    hopeless = result.found["gipo-0.1"]._replace(bias=result.cells.score[:, 0] * 0 + 9)
    nothing = gridworld.report(result._replace(found=result.found | {"sapo-2.0": hopeless}))
    assert line_of(nothing, "2.0", "- **GIPO does not dominate it**").endswith("none.")


def test_the_temperature_of_sapo_decides_how_often_gipo_dominates(folder: Path) -> None:
    words = (folder / "gridworld.md").read_text()
    assert " in 10 of 18 cells: PI-1/A" in line_of(words, "2.0", "- With any σ")
    assert " in 3 of 18 cells: " in line_of(words, "1.05", "- With any σ")


def test_the_readme_says_what_the_numbers_say(folder: Path, result: gridworld.Study) -> None:
    words = (folder / "gridworld.md").read_text()
    # at τ₋ = 2: "the first target off policy throughout, the second under B, C, F and G"; at 1.05: three cells
    dominated = [f"PI-1/{behaviour}" for behaviour in "ABCEFG"] + [f"PI-2/{behaviour}" for behaviour in "BCFG"]
    assert line_of(words, "2.0", "- With any σ").endswith(f": {', '.join(dominated)}.")
    assert line_of(words, "1.05", "- With any σ").endswith(": PI-1/B, PI-1/C, PI-1/F.")
    assert line_of(words, "2.0", "- It dominates GIPO").endswith(": none.")
    assert line_of(words, "1.05", "- It dominates GIPO").endswith(": PI-2/A, PI-2/E, PI-3/A, PI-3/E.")
    # "13 of the 18 off-policy cells"
    assert result.found["ppo"].zero.sum() == 13
    # "σ = .1 wins most cells at N = 1, σ = 2 most at N = 1000, where plain importance sampling is better still"
    best = gridworld.best_rows(result)
    assert sum(row["best_sigma"] == 0.1 for row in best if row["samples"] == 1) > 9
    assert sum(row["best_sigma"] == 2.0 for row in best if row["samples"] == 1000) > 9
    assert sum(row["best_estimator"] == "noclip" for row in best if row["samples"] == 1000) > 9
    # docs/objectives.md: "at ten VESPO and SAPO in 15 of 18 cells", importance sampling "in 10 at a hundred and in 14"
    first = {n: [row["best_estimator"] for row in best if row["samples"] == n] for n in (10, 100, 1000)}
    assert sum(name == "vespo" or name in SAPOS for name in first[10]) == 15
    assert [first[n].count("noclip") for n in (100, 1000)] == [10, 14]


def test_figures_are_drawn(folder: Path) -> None:
    for name in ("gridworld_pareto.png", "gridworld_samples.png"):
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 50_000


def test_estimators_are_those_of_the_study() -> None:
    assert list(ESTIMATORS) == list(COEFFICIENTS)
    grid = cells()
    assert moments(ESTIMATORS["noclip"], grid, true_gradient(grid)).bias.max() == 0
