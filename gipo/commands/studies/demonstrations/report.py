"""What the runs come to: gains in pairs of one clone, as table, text and figure, from the rows of runs.csv alone."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from gipo.callbacks.plots import pyplot, save_figure
from gipo.commands.studies.demonstrations.runs import Row
from gipo.commands.studies.run_tables import distinct
from gipo.commands.studies.statistics import Array, improvement_interval, iqm_interval, paired_interval
from gipo.common.intervals import with_interval
from gipo.common.tables import markdown

plt = pyplot()


def gains(rows: Sequence[Row]) -> list[Row]:
    """For every task, buffer and objective: mean success of clone and policy, and the gain with its interval.

    The gain is the interquartile mean over seeds of after − before, each a pair of one clone and the same goals.
    """
    table = []
    for task, buffer, objective in distinct(rows, "task", "buffer", "objective"):
        found = [row for row in rows if (row["task"], row["buffer"], row["objective"]) == (task, buffer, objective)]
        before, after = (np.array([row[f"success_{when}"] for row in found]) for when in ("before", "after"))
        gain, low, high = iqm_interval((after - before)[None])
        table.append({
            "task": task, "buffer": buffer, "objective": objective, "seeds": len(found), "before": float(before.mean()),
            "after": float(after.mean()), "gain": gain, "low": max(-1.0, low), "high": min(1.0, high),
        })  # fmt: skip
    return table


def by_task(rows: Sequence[Row], buffer: int, objective: str) -> Array:
    """Gains [tasks, seeds] of one buffer and objective."""
    return np.array([
        [row["success_after"] - row["success_before"] for row in rows
         if (row["task"], row["buffer"], row["objective"]) == (task, buffer, objective)]
        for task in distinct(rows, "task")
    ])  # fmt: skip


def report(table: Sequence[Row], rows: Sequence[Row]) -> str:
    """The tables in Markdown, how many tasks were raised, and how the first objective compares with the others."""
    buffers, names = distinct(rows, "buffer"), distinct(rows, "objective")
    cells = {(row["task"], row["buffer"], row["objective"]): row for row in table}
    tasks, seeds = distinct(rows, "task"), len(distinct(rows, "seed"))
    runs = f"{seeds} seed{'s' * (seeds > 1)}"
    lines = [
        f"Any-step success of the clone, and its gain by post-training: interquartile mean over {runs} of the "
        "difference, in pairs of one clone and the same goals, with 95 % intervals over seeds (t, with the bootstrap's "
        "deviation)."
    ]
    for buffer in buffers:
        shown = []
        for task in tasks:
            found = [cells[task, buffer, name] for name in names]
            gained = [_bounded(row["gain"], row["low"], row["high"]) for row in found]
            shown.append((task, f"{found[0]['before']:.2f}", *gained))
        lines += ["", markdown((f"buffer of {buffer}", "clone", *names), shown)]
    lines.append("")
    for buffer, name in product(buffers, names):
        found = [cells[task, buffer, name] for task in tasks]
        raised, lowered = sum(row["low"] > 0 for row in found), sum(row["high"] < 0 for row in found)
        each = by_task(rows, buffer, name)
        middle, mean = (_bounded(*found) for found in (iqm_interval(each), paired_interval(each.mean(1))))
        lines.append(
            f"- Buffer of {buffer}, {name}: {middle} over all tasks; raised (the interval above 0) on {raised} of "
            f"{len(tasks)}, lowered on {lowered}. Mean of the tasks {mean}, Student's interval over tasks."
        )
    for buffer, name in product(buffers, names[1:]):
        chance = improvement_interval(by_task(rows, buffer, names[0]), by_task(rows, buffer, name))
        lines.append(
            f"- Buffer of {buffer}: probability that {names[0]} gains more than {name} {with_interval(*chance)}."
        )
    return "\n".join(lines)


def _bounded(gain: float, low: float, high: float) -> str:
    """A gain with its interval, in what a difference of shares can be."""
    return with_interval(gain, max(-1.0, low), min(1.0, high), "+.2f")


def plot(table: Sequence[Row], path: Path) -> None:
    """Success of the clone and after, a row a task, a panel a buffer, a colour an objective."""
    buffers, names, tasks = (distinct(table, column) for column in ("buffer", "objective", "task"))
    size = (4.5 * len(buffers) + 2, 0.4 * len(tasks) + 1.6)
    figure, grid = plt.subplots(1, len(buffers), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axes, buffer in zip(grid[0], buffers, strict=True):
        for index, name in enumerate(names):
            found = [row for row in table if (row["buffer"], row["objective"]) == (buffer, name)]
            y = np.arange(len(found)) + 0.2 * (index - (len(names) - 1) / 2)
            before, after = (np.array([row[when] for row in found]) for when in ("before", "after"))
            axes.hlines(y, before, after, color=f"C{index}")
            axes.plot(after, y, "o", color=f"C{index}", label=name)
            axes.plot(before, y, "|", color="grey", markersize=8, label=None if index else "clone")
        axes.set_yticks(range(len(tasks)), tasks)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("any-step success, mean over seeds")
        axes.set_title(f"buffer of {buffer}", fontsize="medium")
        axes.grid(alpha=0.3)
    grid[0][0].invert_yaxis()
    grid[0][0].legend(fontsize="small")
    save_figure(figure, path)
