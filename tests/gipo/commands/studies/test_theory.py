"""Curves, bounds and coverage: hand numbers, closed forms, and intervals that hold as often as they promise."""

import argparse
import csv
import math
from pathlib import Path

import numpy as np
import pytest

from gipo.commands.studies import theory
from gipo.commands.studies.gradients.concentration import aged_coverage, coverage, half_widths
from gipo.commands.studies.gradients.curves import OBJECTIVES
from gipo.commands.studies.gradients.mdp import cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("theory")
    theory.run(argparse.Namespace(out=out, draws=300, studies=20, delta=0.05, seed=1))
    return out


def table(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_curves_by_hand(folder: Path) -> None:
    rows = {
        (row["objective"], float(row["advantage"]), round(float(row["log_ratio"]), 6)): row
        for row in table(folder / "objectives.csv")
    }
    at = {  # x = 1, A = 1 and −1: weight and contribution
        ("GIPO, σ = 1", 1.0): (math.exp(-0.5), math.exp(0.5)),
        ("GIPO, σ = .5", -1.0): (math.exp(-2), math.exp(-1)),
        ("GIPO, Laplacian", 1.0): (math.exp(-1), 1.0),
        ("GIPO, Cauchy", 1.0): (0.5, math.e / 2),
        ("No-Clip", -1.0): (1.0, math.e),
        ("PPO-Clip", 1.0): (0.0, 0.0),
        ("PPO-Clip", -1.0): (1.0, math.e),
        ("CISPO, c = 2", 1.0): (2 / math.e, 2.0),
        ("ASPO", 1.0): (0.0, 0.0),
        ("ASPO", -1.0): (1.0, math.e),
        ("ESPO, one dimension", -1.0): (math.e, math.e**2),
        ("VESPO", 1.0): (math.exp(4 - 3 * math.e), math.exp(5 - 3 * math.e)),
        ("VESPO", -1.0): (math.exp(4 - 2 * math.e), math.exp(5 - 2 * math.e)),
        ("M2PO, alone", 1.0): (0.0, 0.0),
        ("M2PO, alone", -1.0): (1.0, math.e),
        ("DPPO, μ ≤ 1/33", 1.0): (1.0, math.e),
        ("decoupled PPO, k = 4", 1.0): (0.0, 0.0),  # e^¼ is above 1.2
        ("MIS", -1.0): (0.0, 0.0),
        ("TIS", 1.0): (2 / math.e, 2.0),
        ("by age, k = 16", -1.0): (math.exp(-0.5 / 1.53), math.exp(1 - 0.5 / 1.53)),
        ("outward, k = 0", -1.0): (math.exp(0.045 - 1), math.exp(0.045)),
        ("outward, k = 0", 1.0): (math.exp(-0.5 / 0.09), math.exp(1 - 0.5 / 0.09)),
    }
    for (name, advantage), (weight, contribution) in at.items():
        row = rows[name, advantage, 1.0]
        assert float(row["weight"]) == pytest.approx(weight, rel=1e-12)
        assert float(row["contribution"]) == pytest.approx(contribution, rel=1e-12)
    assert {name for name, _, _ in rows} == set(OBJECTIVES)
    for (_, advantage, _), row in rows.items():
        assert float(row["gradient"]) == pytest.approx(float(row["contribution"]) * advantage, rel=1e-12)


def test_the_bound_is_reached_and_never_passed(folder: Path) -> None:
    rows = table(folder / "bound.csv")
    assert [float(row["sigma"]) for row in rows] == [0.1, 0.3, 0.5, 1.0, 2.0, 3.0]
    for row in rows:
        sigma, largest, bound = (float(row[name]) for name in ("sigma", "largest", "bound"))
        assert bound == pytest.approx(math.exp(sigma**2 / 2), rel=1e-15)
        assert bound * (1 - 1e-6) < largest <= bound * (1 + 1e-12)
        assert float(row["at_log_ratio"]) == pytest.approx(sigma**2, abs=1e-3)


def test_the_bound_of_every_age_is_reached_and_never_passed(folder: Path) -> None:
    rows = table(folder / "aged_bound.csv")
    assert [(row["form"], row["age"]) for row in rows] == [
        (form, age) for form in ("both sides", "outward only") for age in ("0", "1", "4", "16")
    ]
    for row in rows:
        bound = math.exp((0.09 + 0.09 * int(row["age"])) / 2)
        assert float(row["bound"]) == pytest.approx(bound, rel=1e-12)
        assert float(row["largest"]) == pytest.approx(bound, rel=1e-6)
        assert float(row["largest"]) <= bound * (1 + 1e-12)


def test_intervals_of_mixed_ages_hold_and_are_narrower_than_those_of_the_oldest() -> None:
    rows = aged_coverage((50, 200), draws=300, delta=0.05, seed=3)
    assert len(rows) == 21 * 2 * 2
    bounds = [math.exp((0.09 + 0.09 * age) / 2) for age in (0, 1, 4, 16)]
    for row in rows:
        assert float(row["hoeffding"]) >= 0.95  # type: ignore[arg-type]
        share = math.sqrt(sum(b**2 for b in bounds) / 4) / bounds[-1]
        assert float(row["half_width"]) == pytest.approx(share * float(row["uniform_half_width"]))  # type: ignore[arg-type]
    # √(2·log(2/δ)/48)·b of the oldest, b = exp(σ²/2)·max|A|·max|∂log π|
    grid = cells()
    largest = np.abs(grid.advantage[0]).max() * np.abs(grid.score[0]).max()
    assert rows[0]["samples"] == 48
    by_hand = math.sqrt(2 * math.log(2 / 0.05) / 48) * bounds[-1] * largest
    assert rows[0]["uniform_half_width"] == pytest.approx(by_hand)


def test_half_widths_by_hand() -> None:
    # b = 1, V = ¼, V̂ = ½, n = 100, δ = 2/e so that log(2/δ) = 1 and log(4/δ) = 1 + log 2
    one = np.asarray(1.0)
    found = half_widths(one, one / 4, one / 2, 100, 2 / math.e)
    assert float(found.hoeffding) == pytest.approx(2 / math.sqrt(200))
    assert float(found.bernstein) == pytest.approx(math.sqrt(0.005) + 2 / 300)
    log = 1 + math.log(2)
    assert float(found.empirical) == pytest.approx(math.sqrt(log / 100) + 14 * log / 297)


def test_coverage_is_at_least_nominal_and_not_trivially() -> None:
    rows = coverage((50, 200), draws=1000, delta=0.05, seed=3)
    assert len(rows) == 21 * 2 * 5
    for row in rows:
        for name in ("hoeffding", "bernstein", "empirical"):
            assert float(row[name]) >= 0.95, row  # type: ignore[arg-type]
    assert min(float(row["bernstein"]) for row in rows) < 1  # type: ignore[arg-type]


def test_an_interval_that_is_too_narrow_is_caught() -> None:
    # at 1 − δ = 1 % the promise is next to nothing, and misses must show: the count is real
    rows = coverage((50,), draws=2000, delta=0.99, seed=3)
    shares = [float(row["bernstein"]) for row in rows]  # type: ignore[arg-type]
    assert 0.5 < min(shares) < 0.95


def test_coverage_is_reproducible() -> None:
    assert coverage((50,), 20, 0.05, 3) == coverage((50,), 20, 0.05, 3)
    assert coverage((50,), 20, 0.05, 3) != coverage((50,), 20, 0.05, 4)


def test_coverage_table_and_report(folder: Path) -> None:
    rows = table(folder / "coverage.csv")
    assert len(rows) == 21 * 3 * 5
    assert {int(row["samples"]) for row in rows} == {50, 200, 1000}
    assert {row["draws"] for row in rows} == {"300"}
    words = (folder / "theory.md").read_text()
    assert "It holds" in words
    assert words.count("at least 95% everywhere") == 3
    # the text follows the numbers
    covered = coverage((50, 200, 1000), 20, 0.05, 3)
    covered[0]["bernstein"] = 0.5
    assert "bernstein: **below 95% somewhere**, lowest 0.5000" in theory.report(theory.bound_rows(), covered)
    bounds = theory.bound_rows()
    bounds[0]["largest"] = 2.0
    assert "**fails**" in theory.report(bounds, covered)


def test_figures_are_drawn(folder: Path) -> None:
    for name in ("objectives.png", "rivals.png", "coverage.png"):
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 20_000
