"""What the runs of `gipo-study staleness` come to: tables, a text and figures, from the rows of runs.csv alone."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gipo.callbacks.plots import draw_intervals, pyplot, save_figure
from gipo.commands.studies.run_tables import distinct
from gipo.commands.studies.statistics import (
    Array,
    improvement_interval,
    iqm_difference_interval,
    iqm_interval,
    min_max,
    performance_profile,
    share_interval,
)
from gipo.common.intervals import with_interval
from gipo.common.tables import counted, markdown

plt = pyplot()

Row = dict[str, Any]
# Columns of runs.csv, and the columns of a run's curves.csv that they come from.
SCORES = {"return": "val/return", "success": "val/success", "success_last": "val/success_last"}
MECHANISM = {
    "age_mean": "staleness/age_mean",
    "age_p95": "staleness/age_p95",
    "log_ratio_p95": "ratio/log_abs_p95",
    "ppo_dead": "weight/ppo_dead",
    "suppressed": "weight/suppressed",
    "weight": "weight/mean",
    "ess": "ess/all",
    "kl": "kl",
}
SHARES = {"ppo_dead": "dead to PPO's clip", "suppressed": "weight < 0.001", "ess": "effective sample size"}
MECHANISMS = {  # tables of the text: figures, and how they are written
    "What becomes of the samples: dead to PPO's clip / weight < 0.001 / effective sample size.": dict.fromkeys(
        SHARES, ".2f"
    ),
    "How far the policy is from those that acted: KL / 95 % of |log ρ|, nats.": {"kl": ".3f", "log_ratio_p95": ".2f"},
}
NORMALISED = "normalised return"
THRESHOLDS = np.linspace(0, 1, 51)
BANDS = 4  # so many objectives can be told apart where their intervals lie over each other
INTERVALS = "95 % intervals over runs (t, with the stratified bootstrap's deviation)"


def scores(rows: Sequence[Row]) -> dict[str, dict[tuple[int, str], Array]]:
    """[tasks, seeds] of every score, for every age and objective.

    The normalised return is min-max over all runs of its task, as in the paper. Raw returns of several tasks are on
    scales of their own and are left out.
    """
    tasks, cells = distinct(rows, "task"), distinct(rows, "age", "objective")
    runs: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row["task"], row["age"], row["objective"]), []).append(row)
    found = {}
    names = [name for name in SCORES if all(name in row for row in rows) and (name != "return" or len(tasks) == 1)]
    for name in (NORMALISED, *names):
        column = "return" if name == NORMALISED else name
        by_task = np.array(
            [[[row[column] for row in runs.get((task, *cell), ())] for cell in cells] for task in tasks], dtype=float
        )
        if name == NORMALISED:
            by_task = min_max(by_task.reshape(len(tasks), -1)).reshape(by_task.shape)
        found[name] = {cell: by_task[:, index] for index, cell in enumerate(cells)}
    return found


def summarise(rows: Sequence[Row]) -> list[Row]:
    """For every age and objective: interquartile means with their intervals, and mean staleness figures."""
    by_score = scores(rows)
    table = []
    for age, objective in distinct(rows, "age", "objective"):
        inside = [row for row in rows if (row["age"], row["objective"]) == (age, objective)]
        found: Row = {"age": age, "objective": objective, "runs": len(inside)}
        for name, cells in by_score.items():
            middle, *ends = iqm_interval(cells[age, objective])
            if name != "return":
                ends = np.clip(ends, 0, 1).tolist()
            found |= {name: middle, f"{name} low": ends[0], f"{name} high": ends[1]}
        found |= {name: float(np.mean([row[name] for row in inside])) for name in MECHANISM}
        table.append(found)
    return table


def improvements(rows: Sequence[Row]) -> list[Row]:
    """For every age, of the first objective against each other one: by how much, and how probably, it returns more.

    The difference is of the interquartile means of normalised returns.
    """
    cells = scores(rows)[NORMALISED]
    first, *others = distinct(rows, "objective")
    table = []
    for age, other in product(distinct(rows, "age"), others):
        probability, low, high = improvement_interval(cells[age, first], cells[age, other])
        found = {"probability": probability, "low": low, "high": high}
        difference = iqm_difference_interval(cells[age, first], cells[age, other])
        found |= dict(zip(("difference", "difference low", "difference high"), difference, strict=True))
        table.append({"age": age, "objective": first, "other": other, **found})
    return table


def by_task(rows: Sequence[Row]) -> list[Row]:
    """Means over the seeds of every task, age and objective: normalised return, and the scores that all runs have."""
    by_score, cells = scores(rows), distinct(rows, "age", "objective")
    return [
        {"task": task, "age": cell[0], "objective": cell[1]}
        | {name: float(found[cell][index].mean()) for name, found in by_score.items()}
        for index, task in enumerate(distinct(rows, "task"))
        for cell in cells
    ]


def settings(table: Sequence[Row]) -> list[Row]:
    """Every objective by its interquartile means over the ages: mean and worst; the best mean of its class is marked.

    What stands before the colon of a name is the class, what follows its settings; a label at its end stays.
    """
    found = []
    for objective in distinct(table, "objective"):
        over_ages = [row[NORMALISED] for row in table if row["objective"] == objective]
        family = re.sub(r":\S*", "", objective, count=1)
        found.append({"family": family, "objective": objective, "mean": np.mean(over_ages), "worst": min(over_ages)})
    for row in found:
        row["best of its class"] = row["mean"] == max(each["mean"] for each in found if each["family"] == row["family"])
    return found


def profiles(rows: Sequence[Row]) -> list[Row]:
    """Share of runs whose normalised return is above each threshold, with its pointwise interval."""
    table = []
    for (age, objective), found in scores(rows)[NORMALISED].items():
        share = performance_profile(found, THRESHOLDS)
        low, high = share_interval(share, found.size)
        for values in zip(THRESHOLDS, share, low, high, strict=True):
            figures = dict(zip(("threshold", "share", "low", "high"), map(float, values), strict=True))
            table.append({"age": age, "objective": objective, **figures})
    return table


def report(table: Sequence[Row], compared: Sequence[Row], tasks: int, seeds: int) -> str:
    """The tables in Markdown, and where the first objective does not win."""
    ages, names = distinct(table, "age"), distinct(table, "objective")
    cells = {(row["age"], row["objective"]): row for row in table}

    def by_objective(corner: str, shown: Mapping[tuple[int, str], str]) -> str:
        rows = [(name, *(shown[age, name] for age in ages)) for name in names]
        measured = [f"buffer of {age}: age {_age([cells[age, name] for name in names])}" for age in ages]
        return markdown((corner, *measured), rows)

    lines = [
        f"Interquartile means over {counted(tasks, 'task')} × {counted(seeds, 'seed')}, with "
        f"{INTERVALS}; returns are normalised between the worst and the best run of their task. What is said of the "
        "samples is a plain mean. Age: policy versions between acting and learning, as measured, mean (95 %)."
    ]
    for score in (score for score in (NORMALISED, *SCORES) if score in table[0]):
        form = ".0f" if score == "return" else ".2f"
        intervals = {
            cell: with_interval(row[score], row[f"{score} low"], row[f"{score} high"], form)
            for cell, row in cells.items()
        }
        lines += ["", by_objective(score, intervals)]
    for words, figures in MECHANISMS.items():
        shown = {
            cell: " / ".join(f"{row[name]:{form}}" for name, form in figures.items()) for cell, row in cells.items()
        }
        lines += ["", words, "", by_objective("", shown)]
    lines.append("")
    return "\n".join([*lines, *(_verdict(age, names, cells, compared) for age in ages)])


def _verdict(age: int, names: Sequence[str], cells: Mapping[tuple[int, str], Row], compared: Sequence[Row]) -> str:
    """Whether the first objective returns most at one age, and how probably a run of it more than one of another."""
    first = names[0]
    own = cells[age, first][NORMALISED]
    better = [name for name in names[1:] if cells[age, name][NORMALISED] >= own]
    won = f"{first} does not win, {', '.join(better)} came out no lower" if better else f"{first} returns most"
    chances = ", ".join(
        f"{row['other']} {with_interval(row['probability'], row['low'], row['high'])}"
        for row in compared
        if row["age"] == age
    )
    more = f" Probability that a run of it returns more than one of {chances}." if chances else ""
    return f"- Buffer of {age}: {won}.{more}"


def plot_staleness(table: Sequence[Row], path: Path) -> None:
    """Final scores, and what becomes of the samples, by age; the objectives stand beside each other at every age."""
    panels = [name for name in (NORMALISED, "success") if name in table[0]] + list(SHARES)
    ages, names = distinct(table, "age"), distinct(table, "objective")
    ticks = [np.mean([row["age_mean"] for row in table if row["age"] == age]) for age in ages]
    figure, grid = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.8), layout="constrained")
    for axes, panel in zip(grid, panels, strict=True):
        low, high = (each if each in table[0] else panel for each in (f"{panel} low", f"{panel} high"))
        lines = {
            name: [
                {"middle": row[panel], "low": row[low], "high": row[high]} for row in table if row["objective"] == name
            ]
            for name in names
        }
        draw_intervals(axes, lines, "middle")
        axes.set_xticks(range(len(ages)), [f"{tick:.1f}" for tick in ticks])
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("mean age of a sample [policy versions]")
        axes.set_ylabel(SHARES.get(panel, f"final {panel} (IQM)"))
    _legend(figure, grid)
    save_figure(figure, path)


def plot_profiles(table: Sequence[Row], path: Path) -> None:
    """Performance profiles, one panel an age."""
    ages, names = distinct(table, "age"), distinct(table, "objective")
    figure, grid = plt.subplots(
        1, len(ages), figsize=(3.8 * len(ages), 3.6), layout="constrained", sharey=True, squeeze=False
    )
    for axes, age in zip(grid[0], ages, strict=True):
        for name in names:
            found = [row for row in table if (row["age"], row["objective"]) == (age, name)]
            x, y, low, high = ([row[key] for row in found] for key in ("threshold", "share", "low", "high"))
            (line,) = axes.step(x, y, where="post", label=name)
            if len(names) <= BANDS:
                axes.fill_between(x, low, high, step="post", alpha=0.12, color=line.get_color())
        axes.set_title(f"buffer of {age}", fontsize="medium")
        axes.set_xlabel(f"{NORMALISED} τ")
        axes.grid(alpha=0.3)
    grid[0][0].set_ylabel("share of runs above τ")
    _legend(figure, grid[0])
    save_figure(figure, path)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """The names of the objectives below the panels, of which they would hide some."""
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=len(panels), fontsize="small")


def _age(rows: Sequence[Row]) -> str:
    mean, p95 = (np.mean([row[name] for row in rows]) for name in ("age_mean", "age_p95"))
    return f"{mean:.1f} ({p95:.0f})"
