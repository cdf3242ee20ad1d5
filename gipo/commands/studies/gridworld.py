"""Bias and variance of every objective's policy gradient on the paper's 2×2 GridWorld, computed exactly.

Three target policies, seven behaviour policies each, one-sample estimators of ∂J/∂θ(S0, right): GIPO at five σ and at
widths by age, SAPO with the two temperatures τ₋ that are in use for bad actions, and the other rivals. Writes

  gridworld.csv          mean, bias, variance, mean squared error of each estimator, float64
  gridworld_samples.csv  bias² + variance/N for N = 1, 10, 100, 1000
  gridworld_best.csv     the best σ, and the best estimator, for each N
  gridworld_pareto.png   the bias-variance plane of each target and behaviour, with GIPO as a curve in σ
  gridworld_samples.png  bias² + variance/N against N
  gridworld.md           what holds and what does not
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gipo.commands.studies.gradients.estimators import AGED, ESTIMATORS, GIPOS, RIVALS, SAPOS, SIGMAS
from gipo.commands.studies.gradients.figures import plot_pareto, plot_samples
from gipo.commands.studies.gradients.mdp import ON_POLICY, TARGETS, values
from gipo.commands.studies.gradients.plane import CURVE, SAMPLES, Study, dominates, lowest, off_policy, study
from gipo.common.files import write_text
from gipo.common.tables import markdown, write_table
from gipo.objectives import NoClip

BOUND = NoClip().log_ratio_bound  # nats; of the ratio here, of w·ρ elsewhere, which is less
NONE = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study has no options of its own."""


def run(options: argparse.Namespace) -> None:
    """Write the study's files into `options.out`."""
    result = study()
    files: dict[str, Callable[[Path], None]] = {
        "gridworld.csv": lambda path: write_table(rows(result), path),
        "gridworld_samples.csv": lambda path: write_table(sample_rows(result), path),
        "gridworld_best.csv": lambda path: write_table(best_rows(result), path),
        "gridworld_pareto.png": lambda path: plot_pareto(result, path),
        "gridworld_samples.png": lambda path: plot_samples(result, path),
        "gridworld.md": lambda path: write_text(report(result), path),
    }
    for name, write in tqdm(files.items(), desc="writing", unit="file"):
        write(options.out / name)
    print(report(result))


def rows(result: Study) -> list[dict[str, object]]:
    """One row for each target, behaviour and estimator."""
    return [
        where | {"estimator": name, **{key: float(value[cell]) for key, value in figures.items()}}
        for cell, where in _cells(result)
        for name, found in result.found.items()
        for figures in [{"mean": found.mean, "bias": found.bias, "variance": found.variance, "mse": found.mse(1)}]
    ]


def sample_rows(result: Study) -> list[dict[str, object]]:
    """Mean squared error of the mean of N samples, for each N."""
    return [
        where | {"samples": n, "estimator": name, "mse": float(found.mse(n)[cell])}
        for cell, where in _cells(result)
        for n in SAMPLES
        for name, found in result.found.items()
    ]


def best_rows(result: Study) -> list[dict[str, object]]:
    """The best σ and the best estimator for each N, off-policy: on policy all are the same."""
    return [
        where
        | {
            "samples": n,
            "best_sigma": SIGMAS[list(GIPOS).index(sigma)],
            "best_sigma_mse": float(result.found[sigma].mse(n)[cell]),
            "best_estimator": best,
            "best_estimator_mse": float(result.found[best].mse(n)[cell]),
        }
        for cell, where in _cells(result)
        if where["behaviour"] != ON_POLICY
        for n in SAMPLES
        for sigma, best in [(lowest(result, cell, n, GIPOS), lowest(result, cell, n, ESTIMATORS))]
    ]


def _cells(result: Study) -> Iterator[tuple[int, dict[str, object]]]:
    """The index of each cell, and its names as the first columns of a row."""
    for cell, (target, behaviour) in enumerate(result.cells.names):
        yield cell, {"target": target, "behaviour": behaviour}


def report(result: Study) -> str:
    """What holds and what does not, from the numbers."""
    largest = np.abs(result.cells.log_ratio).max()
    best = best_rows(result)
    by_cell = np.array([row["best_sigma"] for row in best]).reshape(-1, len(SAMPLES))
    grows = bool((np.diff(by_cell, axis=1) >= 0).all())
    zero = {name: _listed(result, found.zero, everywhere=True) for name, found in result.found.items()}
    lines = [
        "# Bias and variance on the 2×2 GridWorld",
        "",
        "One-sample estimators of the gradient for θ(S0, right), exact sums over the four actions. V(S0) of PI-1 is "
        f"{values(TARGETS['PI-1'])[0]:.6f}. The largest |x| is {largest:.2f} nats: the bound on exponents, {BOUND:g}, "
        f"binds {'nowhere' if largest < BOUND else '**somewhere**'}.",
        f"Behaviour {ON_POLICY} is the target itself: there all estimators are the same, and it is left out below. "
        "SAPO has τ₊ = 1, and τ₋ as its name says.",
        "",
        *(line for name in SAPOS for line in _against(result, name)),
        *_rivals(result),
        "## As samples grow",
        "",
        f"- The best σ {'never falls' if grows else '**sometimes falls**'} as samples grow, because bias stays and "
        "variance averages out:",
        *_counts(best, "best_sigma", "σ = "),
        "- With many samples bias decides, and GIPO is not always best. Best of all estimators:",
        *_counts(best, "best_estimator", ""),
        "- The error of a single sample rewards estimators that shrink to zero: a best σ of 0.1 at N = 1 says that "
        "doing almost nothing beats one noisy sample, not that 0.1 is a good width.",
        *(
            f"- {name} is zero for every action, and not ranked: {where}."
            for name, where in zero.items()
            if where != NONE
        ),
        "",
    ]
    return "\n".join(lines)


def _against(result: Study, name: str) -> list[str]:
    """Where GIPO dominates one of the SAPOs, and where it does not."""
    sapo, tau = result.found[name], name.partition("-")[2]
    by_five = np.any([dominates(result.found[gipo], sapo) for gipo in GIPOS], axis=0)
    by_any = np.any([by_five, *(dominates(found, sapo) for found in result.curve)], axis=0)
    reverse = np.any([dominates(sapo, result.found[gipo]) for gipo in GIPOS], axis=0)
    off = int(off_policy(result).sum())
    return [
        f"## SAPO with τ₋ = {tau}",
        "",
        f"- GIPO with σ of {', '.join(map(str, SIGMAS))} dominates it (no more bias, no more variance, and less of "
        f"one) in: {_listed(result, by_five)}.",
        f"- With any σ between {CURVE[0]:g} and {CURVE[-1]:g}, of {len(CURVE)} tried, in "
        f"{int((by_any & off_policy(result)).sum())} of {off} cells: {_listed(result, by_any)}.",
        f"- **GIPO does not dominate it**, at any σ tried: {_listed(result, ~by_any)}.",
        f"- With the five σ alone, also not: {_listed(result, ~by_five & by_any)}.",
        f"- It dominates GIPO at one of the five σ at least: {_listed(result, reverse)}.",
        "",
    ]


def _rivals(result: Study) -> list[str]:
    """Where rivals, and widths by age, lie against GIPO: in how many of the cells off policy each holds."""
    off = off_policy(result)
    rows = []
    for name in (*RIVALS, *AGED):
        one = result.found[name]
        by_gipo = np.any([dominates(found, one) for found in result.curve], axis=0)
        of_gipo = np.any([dominates(one, found) for found in result.curve], axis=0)
        counts = [int((mask & off & ~one.zero).sum()) for mask in (by_gipo, of_gipo)]
        better = [
            sum(
                one.mse(n)[cell] < min(found.mse(n)[cell] for found in result.curve)
                for cell in np.flatnonzero(off & ~one.zero)
            )
            for n in SAMPLES
        ]
        rows.append((name, int((one.zero & off).sum()), *counts, *better))
    columns = ("estimator", "zero", "GIPO dominates", "dominates GIPO", *(f"better, N = {n}" for n in SAMPLES))
    return [
        "## Rivals, and widths by age",
        "",
        f"In how many of the {int(off.sum())} cells an estimator is zero for every action, is dominated by GIPO at "
        "some σ, dominates GIPO at some σ, and has a lower error of a mean of N samples than GIPO at its best σ for "
        "that cell and N. A number in a name is the age of all data in versions; `age` has σ² = .3² + .3²·k, `outward` "
        "damps only what leads further away.",
        "",
        markdown(columns, rows),
        "",
    ]


def _listed(result: Study, mask: NDArray[np.bool_], everywhere: bool = False) -> str:
    """Names of the cells in `mask`, of those off policy unless `everywhere`."""
    inside = mask if everywhere else mask & off_policy(result)
    return ", ".join("/".join(pair) for pair, chosen in zip(result.cells.names, inside, strict=True) if chosen) or NONE


def _counts(best: list[dict[str, object]], column: str, prefix: str) -> list[str]:
    """How often each value of a column is best, a line for each N."""
    found = ((n, Counter(str(row[column]) for row in best if row["samples"] == n)) for n in SAMPLES)
    return [
        f"  - N = {n}: " + ", ".join(f"{prefix}{value} in {count}" for value, count in sorted(counted.items()))
        for n, counted in found
    ]
