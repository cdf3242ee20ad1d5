"""What each objective does with a sample, as a function of its log-ratio; and the bounds that follow, checked.

Writes

  objectives.png  trust weight, contribution and gradient of the family against log ρ
  rivals.png      the same of newer rivals on stale data, and of widths by age
  objectives.csv  all of them as numbers
  bound.csv       the largest contribution of GIPO for each σ, beside exp(σ²/2)
  aged_bound.csv  the same of AgeAwareGIPO for each age, both of its forms
  coverage.csv    how often concentration intervals hold on the GridWorld, and their width
  coverage.png    the same, the worst case for each σ
  aged.csv        how often intervals hold for a mean of samples of mixed ages, and their width
  intervals.csv   how often the intervals of few runs hold, those that the other studies print, on simulated scores
  theory.md       what holds and what does not
"""

import argparse
import math
from itertools import product
from pathlib import Path

import numpy as np

from gipo.callbacks.plots import pyplot, save_figure
from gipo.commands.studies.gradients.concentration import HalfWidths, aged_coverage, coverage
from gipo.commands.studies.gradients.curves import (
    AGED,
    FAMILY,
    OUTWARD,
    RIVALS,
    Rows,
    objective_rows,
    plot_objectives,
)
from gipo.commands.studies.gradients.estimators import AGES, SIGMAS, response
from gipo.commands.studies.interval_coverage import interval_coverage
from gipo.commands.studies.options import add_numbers
from gipo.common.files import write_text
from gipo.common.parsing import SEEDS, number
from gipo.common.tables import markdown, write_table
from gipo.objectives import GIPO

plt = pyplot()

SAMPLES = (50, 200, 1000)
ROUNDING = 1e-12  # excess over the bound that float64 explains


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say how large the checks of coverage are, and at which confidence."""
    add_numbers(parser, "--draws", 10_000, 10**8, "experiments for each cell and n")
    add_numbers(parser, "--studies", 4_000, 10**6, "simulated studies for each kind of interval")
    parser.add_argument(
        "--delta", type=number(1e-6, 1 - 1e-6), default=0.05, help="1 − nominal coverage (default: %(default)s)"
    )
    add_numbers(parser, "--seed", 22, SEEDS, "seed of the experiments", least=0)


def run(options: argparse.Namespace) -> None:
    """Write the study's files into `options.out`."""
    out: Path = options.out
    curves, bounds = objective_rows(), bound_rows()
    covered = coverage(SAMPLES, options.draws, options.delta, options.seed)
    aged_bounds = aged_bound_rows()
    aged = aged_coverage(SAMPLES, options.draws, options.delta, options.seed)
    intervals = interval_coverage(options.studies, options.seed)
    write_table(curves, out / "objectives.csv")
    write_table(bounds, out / "bound.csv")
    write_table(covered, out / "coverage.csv")
    write_table(intervals, out / "intervals.csv")
    write_table(aged_bounds, out / "aged_bound.csv")
    write_table(aged, out / "aged.csv")
    plot_objectives(curves, FAMILY, out / "objectives.png")
    plot_objectives(curves, RIVALS, out / "rivals.png")
    plot_coverage(covered, out / "coverage.png")
    words = report(bounds, covered) + report_aged(aged_bounds, aged) + report_intervals(intervals)
    write_text(words, out / "theory.md")
    print(words)


def bound_rows() -> Rows:
    """The largest w·ρ of GIPO over a fine grid of x, beside its bound exp(σ²/2), which is reached at x = σ²."""
    x = np.linspace(-12, 12, 240_001)
    found: Rows = []
    for sigma in (*SIGMAS, 3.0):
        contribution = response(GIPO(sigma=sigma), x, np.ones_like(x)).contribution
        peak = int(contribution.argmax())
        largest, bound = float(contribution[peak]), math.exp(sigma**2 / 2)
        found.append({"sigma": sigma, "largest": largest, "bound": bound, "at_log_ratio": float(x[peak])})
    return found


def aged_bound_rows() -> Rows:
    """The largest w·ρ of AgeAwareGIPO at each age, good and bad actions, beside its bound exp(σ_k²/2)."""
    x = np.linspace(-12, 12, 24_001)
    found: Rows = []
    for (form, objective), age in product({"both sides": AGED, "outward only": OUTWARD}.items(), AGES):
        variance = 0.3**2 + age * 0.3**2
        parts = [response(objective, x, np.full_like(x, sign), age).contribution.max() for sign in (1.0, -1.0)]
        bound = math.exp(variance / 2)
        found.append({"form": form, "age": age, "sigma": math.sqrt(variance), "largest": max(parts), "bound": bound})
    return found


def plot_coverage(rows: Rows, path: Path) -> None:
    """Lowest coverage, and mean half-width, over the cells, against σ for each n."""
    figure, (covered, width) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    grouped = groups(rows)
    for name, style in zip(HalfWidths._fields, ("-", "--", ":"), strict=True):
        for colour, n in zip(("C0", "C1", "C2"), SAMPLES, strict=True):
            chosen = [grouped[sigma, n] for sigma in SIGMAS]
            low, mean = [lowest(group, name) for group in chosen], [mean_half_width(group, name) for group in chosen]
            covered.plot(SIGMAS, low, colour + style, marker=".", label=f"{name}, n = {n}")
            width.semilogy(SIGMAS, mean, colour + style, marker=".")
    covered.axhline(rows[0]["nominal"], color="k", lw=0.8)
    covered.set_ylabel("lowest coverage over the cells")
    width.set_ylabel("mean half-width")
    for axes in (covered, width):
        axes.set_xlabel("σ")
        axes.grid(alpha=0.3)
    covered.legend(fontsize=6)
    save_figure(figure, path, dpi=100)


def report(bounds: Rows, covered: Rows) -> str:
    """What holds and what does not, from the numbers."""
    excess = max(row["largest"] / row["bound"] - 1 for row in bounds)
    lines = [
        "# Bounds of GIPO",
        "",
        "## w·ρ ≤ exp(σ²/2), reached at log ρ = σ²",
        "",
        markdown(
            ("σ", "largest w·ρ", "exp(σ²/2)", "at log ρ"),
            [(r["sigma"], f"{r['largest']:.6f}", f"{r['bound']:.6f}", f"{r['at_log_ratio']:.4f}") for r in bounds],
        ),
        "",
        f"It {'holds' if excess <= ROUNDING else '**fails**'}: largest excess {excess:.1e}, relative.",
        "",
        *_coverage(covered),
        "The intervals are around the estimator's own mean: they say nothing of its bias (see `gipo-study gridworld`).",
        "They hold more often than they promise, and where n is small they are wider than the values themselves: the",
        "price of needing no more than a bound, which grows as exp(σ²/2).",
        "",
    ]
    return "\n".join(lines)


def _coverage(covered: Rows) -> list[str]:
    """How often the intervals around a mean of gradients hold, as lines of a table and of verdicts."""
    nominal, draws = covered[0]["nominal"], covered[0]["draws"]
    promised = _percent(nominal)
    lines = [
        f"## Coverage of {promised} intervals, {draws} draws in each of the GridWorld's cells",
        "",
        "Lowest over the cells, and mean half-width:",
        "",
        markdown(
            ("σ", "n", *HalfWidths._fields),
            [
                (*cell, *(f"{lowest(group, k):.4f} (±{mean_half_width(group, k):.3f})" for k in HalfWidths._fields))
                for cell, group in groups(covered).items()
            ],
        ),
        "",
    ]
    for name in HalfWidths._fields:
        low = lowest(covered, name)
        verdict = f"at least {promised} everywhere" if low >= nominal else f"**below {promised} somewhere**"
        lines.append(f"- {name}: {verdict}, lowest {low:.4f}.")
    return [*lines, ""]


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def report_aged(bounds: Rows, aged: Rows) -> str:
    """Bounds and intervals of widths by age, from the numbers."""
    excess = max(row["largest"] / row["bound"] - 1 for row in bounds)
    low = min(row["hoeffding"] for row in aged)
    share = max(row["half_width"] / row["uniform_half_width"] for row in aged)
    nominal, ages = aged[0]["nominal"], ", ".join(map(str, AGES))
    kept = "at least" if low >= nominal else "**below**"
    lines = [
        "## Widths by age: w·ρ ≤ exp(σ_k²/2) at every age, σ_k² = .3² + .3²·k",
        "",
        markdown(
            ("form", "age", "σ_k", "largest w·ρ", "exp(σ_k²/2)"),
            [(r["form"], r["age"], f"{r['sigma']:.3f}", f"{r['largest']:.6f}", f"{r['bound']:.6f}") for r in bounds],
        ),
        "",
        f"It {'holds' if excess <= ROUNDING else '**fails**'}: largest excess {excess:.1e}, relative.",
        "",
        f"With b_i = exp(σ_k²/2)·max|A|·max|∂log π| of the age k of sample i, Hoeffding's interval of a mean of n "
        f"samples is ±√(2·log(2/δ)·Σb_i²)/n. In equal parts of the ages {ages} it held in at least {low:.4f} of the "
        f"draws of every cell, form and n ({kept} the nominal {_percent(nominal)}); "
        f"it was at most {share:.2f} times as wide as with the bound of the oldest for all.",
        "",
        "",
    ]
    return "\n".join(lines)


def report_intervals(intervals: Rows) -> str:
    """How often the intervals of few runs hold, as a table."""
    studies = intervals[0]["draws"]
    lines = [
        "## Coverage of the 95 % intervals of few runs",
        "",
        f"{studies} simulated studies each, of normal scores unless said; strata are tasks, runs are seeds.",
        "",
        markdown(
            ("figure", "strata × runs", "coverage", "mean width"),
            [
                (
                    row["figure"],
                    f"{row['strata']} × {row['runs']}",
                    f"{row['coverage']:.3f}",
                    f"{row['width']:.2f}",
                )
                for row in intervals
            ],
        ),
        "",
    ]
    return "\n".join(lines)


def groups(covered: Rows) -> dict[tuple[float, int], Rows]:
    """Rows of every cell by σ and n."""
    return {
        (sigma, n): [row for row in covered if (row["sigma"], row["samples"]) == (sigma, n)]
        for sigma in SIGMAS
        for n in SAMPLES
    }


def lowest(rows: Rows, name: str) -> float:
    """Lowest coverage of the interval `name`."""
    return min(row[name] for row in rows)


def mean_half_width(rows: Rows, name: str) -> float:
    """Mean half-width of the interval `name`."""
    return float(np.mean([row[f"{name}_half_width"] for row in rows]))
