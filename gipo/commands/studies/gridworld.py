"""Bias and variance of every objective's policy gradient on the paper's 2×2 GridWorld, computed exactly.

Three target policies, seven behaviour policies each, ten estimators of ∂J/∂θ(S0, right) from one sample, SAPO with the
two temperatures τ₋ that are in use for bad actions. Writes

  gridworld.csv          mean, bias, variance, mean squared error of each estimator, float64
  gridworld_samples.csv  bias² + variance/N for N = 1, 10, 100, 1000
  gridworld_best.csv     the best σ, and the best estimator, for each N
  gridworld_pareto.png   the bias-variance plane of each target and behaviour, with GIPO as a curve in σ
  gridworld_samples.png  bias² + variance/N against N
  gridworld.md           what holds and what does not
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gipo.callbacks.plots import pyplot, save_figure, write_table
from gipo.commands.studies.gradients.estimators import ESTIMATORS, GIPOS, SAPOS, SIGMAS, Moments, moments, true_gradient
from gipo.commands.studies.gradients.mdp import ON_POLICY, TARGETS, Cells, cells, values
from gipo.common.files import write_text
from gipo.objectives import GIPO, NoClip

plt = pyplot()

SAMPLES = (1, 10, 100, 1000)
CURVE = np.geomspace(0.05, 20, 400)  # σ of the curve in the figures
BOUND = NoClip().log_ratio_bound  # nats; of the ratio here, of w·ρ elsewhere, which is less
ROUNDING = 1e-12  # differences below this are none
NONE = "none"
COLOURS = {"noclip": "black", "ppo": "tab:red", "sapo-1.05": "tab:green", "sapo-2.0": "tab:olive", "aspo": "tab:purple"}


class Study(NamedTuple):
    """Moments of every estimator in every cell, and of GIPO along a curve of σ."""

    cells: Cells
    found: dict[str, Moments]
    curve: list[Moments]


def study() -> Study:
    """Compute everything; some hundred sums over four actions."""
    grid = cells()
    truth = true_gradient(grid)
    return Study(
        grid,
        {name: moments(objective, grid, truth) for name, objective in ESTIMATORS.items()},
        [moments(GIPO(sigma=float(sigma)), grid, truth) for sigma in CURVE],
    )


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


def lowest(result: Study, cell: int, n: int, among: Mapping[str, object]) -> str:
    """Name of the estimator with the lowest error, without those that are zero for every action."""
    errors = {name: result.found[name].mse(n)[cell] for name in among if not result.found[name].zero[cell]}
    return min(errors, key=lambda name: float(errors[name]))


def dominates(one: Moments, other: Moments) -> NDArray[np.bool_]:
    """Where `one` has neither more bias nor more variance than `other`, and less of one of them, [C] bool."""
    bias, variance = one.bias - other.bias, one.variance - other.variance
    return (bias <= ROUNDING) & (variance <= ROUNDING) & ((bias < -ROUNDING) | (variance < -ROUNDING))


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
    off = int(_off_policy(result).sum())
    return [
        f"## SAPO with τ₋ = {tau}",
        "",
        f"- GIPO with σ of {', '.join(map(str, SIGMAS))} dominates it (no more bias, no more variance, and less of "
        f"one) in: {_listed(result, by_five)}.",
        f"- With any σ between {CURVE[0]:g} and {CURVE[-1]:g}, of {len(CURVE)} tried, in "
        f"{int((by_any & _off_policy(result)).sum())} of {off} cells: {_listed(result, by_any)}.",
        f"- **GIPO does not dominate it**, at any σ tried: {_listed(result, ~by_any)}.",
        f"- With the five σ alone, also not: {_listed(result, ~by_five & by_any)}.",
        f"- It dominates GIPO at one of the five σ at least: {_listed(result, reverse)}.",
        "",
    ]


def _off_policy(result: Study) -> NDArray[np.bool_]:
    return np.array([behaviour != ON_POLICY for _, behaviour in result.cells.names])


def _listed(result: Study, mask: NDArray[np.bool_], everywhere: bool = False) -> str:
    """Names of the cells in `mask`, of those off policy unless `everywhere`."""
    inside = mask if everywhere else mask & _off_policy(result)
    return ", ".join("/".join(pair) for pair, chosen in zip(result.cells.names, inside, strict=True) if chosen) or NONE


def _counts(best: list[dict[str, object]], column: str, prefix: str) -> list[str]:
    """How often each value of a column is best, a line for each N."""
    found = ((n, Counter(str(row[column]) for row in best if row["samples"] == n)) for n in SAMPLES)
    return [
        f"  - N = {n}: " + ", ".join(f"{prefix}{value} in {count}" for value, count in sorted(counted.items()))
        for n, counted in found
    ]


def plot_pareto(result: Study, path: Path) -> None:
    """The bias-variance plane of each cell: points, and GIPO's curve in σ."""
    figure, grid = _panels(result, shared=False)
    for cell, axes in enumerate(grid):
        along = [(found.bias[cell], found.variance[cell]) for found in result.curve]
        axes.plot(*zip(*along, strict=True), color="tab:blue", lw=1, label="GIPO, σ from .05 to 20")
        for name, found in result.found.items():
            if found.zero[cell]:
                continue
            point = (found.bias[cell], found.variance[cell])
            if name in COLOURS:
                axes.plot(*point, "o", color=COLOURS[name], ms=5, label=name)
            else:
                axes.plot(*point, ".", color="tab:blue", ms=6)
                axes.annotate(name.removeprefix("gipo-"), point, fontsize=6, color="tab:blue")
    _finish(figure, grid, "bias", "variance", path)


def plot_samples(result: Study, path: Path) -> None:
    """Mean squared error against the number of samples, in each cell, and where the best σ lies."""
    figure, grid = _panels(result, shared=True)
    shades = plt.colormaps["Blues"](np.linspace(0.35, 1, len(GIPOS)))
    colours: dict[str, Any] = COLOURS | dict(zip(GIPOS, shades, strict=True))
    n = np.geomspace(SAMPLES[0], SAMPLES[-1], 40)
    for cell, axes in enumerate(grid):
        axes.set(xscale="log", yscale="log")
        axes.minorticks_off()  # they take longer to draw than all the rest
        for name, found in result.found.items():
            if not found.zero[cell]:
                axes.plot(n, found.bias[cell] ** 2 + found.variance[cell] / n, color=colours[name], lw=1, label=name)
        if result.cells.names[cell][1] != ON_POLICY:
            for count in SAMPLES:
                best = lowest(result, cell, count, GIPOS)
                axes.plot(count, result.found[best].mse(count)[cell], "*", color="tab:orange", ms=5, label="best σ")
    _finish(figure, grid, "samples N", "bias² + variance/N", path)


def _panels(result: Study, shared: bool) -> tuple[Any, list[Any]]:
    columns = len(result.cells.names) // len(TARGETS)
    figure, grid = plt.subplots(
        len(TARGETS),
        columns,
        figsize=(2.4 * columns, 2.3 * len(TARGETS)),
        sharex=shared,
        sharey="row" if shared else False,
    )
    # fixed margins: laying out so many panels automatically takes longer than all the rest
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.08, top=0.89, hspace=0.35, wspace=0.1 if shared else 0.35)
    for axes, (target, behaviour) in zip(grid.flat, result.cells.names, strict=True):
        axes.set_title(f"{target}, behaviour {behaviour}", fontsize=8)
        axes.tick_params(labelsize=6)
        axes.grid(alpha=0.3)
    return figure, list(grid.flat)


def _finish(figure: Any, grid: list[Any], x: str, y: str, path: Path) -> None:
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    handles: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncols=len(handles), fontsize=8)
    save_figure(figure, path, dpi=100)
