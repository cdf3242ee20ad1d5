"""What the runs come to: gains in pairs of one clone, as table, text and figure, from the rows of runs.csv alone."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from gipo.callbacks.plots import pyplot, save_figure
from gipo.commands.studies.demonstrations.runs import Row
from gipo.commands.studies.run_tables import distinct
from gipo.commands.studies.statistics import Array, improvement_interval, iqm_interval, paired_interval
from gipo.common.intervals import difference_with_interval, with_interval
from gipo.common.tables import counted, markdown

plt = pyplot()


def gains(rows: Sequence[Row], score: str = "success") -> list[Row]:
    """For every task, buffer and objective: mean score of clone and policy, and the gain with its interval.

    The gain is the interquartile mean over seeds of after − before, each a pair of one clone and the same goals.

    Args:
        rows: of runs.csv.
        score: `success` at any step, or at the `last`.
    """
    table = []
    for task, buffer, objective in distinct(rows, "task", "buffer", "objective"):
        found = [row for row in rows if (row["task"], row["buffer"], row["objective"]) == (task, buffer, objective)]
        before, after = (np.array([row[f"{score}_{when}"] for row in found]) for when in ("before", "after"))
        gain, low, high = iqm_interval((after - before)[None])
        table.append({
            "task": task, "buffer": buffer, "objective": objective, "seeds": len(found), "before": float(before.mean()),
            "after": float(after.mean()), "gain": gain, "low": max(-1.0, low), "high": min(1.0, high),
        })  # fmt: skip
    return table


def by_task(rows: Sequence[Row], buffer: int, objective: str, score: str = "success") -> Array:
    """Gains [tasks, seeds] of one buffer and objective."""
    return np.array([
        [row[f"{score}_after"] - row[f"{score}_before"] for row in rows
         if (row["task"], row["buffer"], row["objective"]) == (task, buffer, objective)]
        for task in distinct(rows, "task")
    ])  # fmt: skip


def report(table: Sequence[Row], rows: Sequence[Row]) -> str:
    """The tables in Markdown, how many tasks were raised, and how the first objective compares with the others."""
    buffers, names = distinct(rows, "buffer"), distinct(rows, "objective")
    cells = {(row["task"], row["buffer"], row["objective"]): row for row in table}
    tasks, seeds = distinct(rows, "task"), counted(table[0]["seeds"], "seed")
    lines = [
        f"Any-step success of the clone, and its gain by post-training: interquartile mean over {seeds} of the "
        "difference, in pairs of one clone and the same goals, with 95 % intervals over seeds (t, with the bootstrap's "
        "deviation)."
    ]
    for buffer in buffers:
        shown = []
        for task in tasks:
            found = [cells[task, buffer, name] for name in names]
            gained = [difference_with_interval(row["gain"], row["low"], row["high"]) for row in found]
            shown.append((task, f"{found[0]['before']:.2f}", *gained))
        lines += ["", markdown((f"buffer of {buffer}", "clone", *names), shown)]
    lines += ["", *_over_tasks(table, rows, "success", "at any step")]
    lines += ["", *_over_tasks(gains(rows, "last"), rows, "last", "at the last step")]
    compared = list(product(buffers, names[1:]))
    lines += [""] * bool(compared)
    for buffer, name in compared:
        ours, theirs = by_task(rows, buffer, names[0]), by_task(rows, buffer, name)
        more = difference_with_interval(*paired_interval((ours - theirs).mean(1)))
        lines.append(
            f"- Buffer of {buffer}: {names[0]}'s gain minus {name}'s {more}, mean of the tasks with Student's interval "
            f"over them; probability that {names[0]} gains more {with_interval(*improvement_interval(ours, theirs))}."
        )
    return "\n".join(lines)


def _over_tasks(table: Sequence[Row], rows: Sequence[Row], score: str, when: str) -> list[str]:
    """A line for every buffer and objective: the gain over all tasks, and how many were raised and lowered."""
    lines = []
    for buffer, name in distinct(table, "buffer", "objective"):
        found = [row for row in table if (row["buffer"], row["objective"]) == (buffer, name)]
        raised, lowered = sum(row["low"] > 0 for row in found), sum(row["high"] < 0 for row in found)
        full = sum(row["before"] == 1 for row in found)
        each = by_task(rows, buffer, name, score)
        middle, mean = (
            difference_with_interval(*interval) for interval in (iqm_interval(each), paired_interval(each.mean(1)))
        )
        lines.append(
            f"- Success {when}, buffer of {buffer}, {name}: {middle} over all tasks; raised (the interval above 0) on "
            f"{raised} of {len(found)}, lowered on {lowered}"
            f"{f', no room above the clone on {full}' * bool(full)}. Mean of the tasks {mean}, with Student's interval "
            "over them."
        )
    return lines


def plot(table: Sequence[Row], path: Path) -> None:
    """Success of the clone and after, a row a task, a panel a buffer, a colour an objective."""
    buffers, names, tasks = (distinct(table, column) for column in ("buffer", "objective", "task"))
    size = (4.5 * len(buffers) + 2, 0.4 * len(tasks) + 1.6)
    figure, grid = plt.subplots(1, len(buffers), figsize=size, layout="constrained", sharey=True, squeeze=False)
    for axes, buffer in zip(grid[0], buffers, strict=True):
        for index, name in enumerate(names):
            found = [row for row in table if (row["buffer"], row["objective"]) == (buffer, name)]
            y = np.array([tasks.index(row["task"]) for row in found]) + 0.2 * (index - (len(names) - 1) / 2)
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
    shown = grid[0][0].get_legend_handles_labels()
    figure.legend(*shown, fontsize="small", ncols=len(names) + 1, loc="outside upper right")  # where it hides no point
    save_figure(figure, path)
