"""Fifty small curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from gipo.callbacks.plots import pyplot, save_figure
from gipo.commands.studies.fifty.entrants import is_development
from gipo.commands.studies.fifty.tables import Row
from gipo.commands.studies.run_tables import distinct

COLUMNS = 10


def draw(lines: Sequence[Row], path: Path) -> None:
    """Success against environment steps, a panel for each task, a curve for each entrant: the mean over its seeds."""
    plt = pyplot()
    tasks, entrants = distinct(lines, "task"), distinct(lines, "entrant")
    columns = min(COLUMNS, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.7 * columns + 1, 1.5 * rows + 1), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for panel, task in zip(axes.flat, tasks, strict=False):
        developed = " *" if is_development(task) else ""
        panel.set_title(task.removesuffix("-v3") + developed, fontsize=7)
        panel.set_ylim(-0.03, 1.03)
        for index, entrant in enumerate(entrants):
            own = [line for line in lines if (line["task"], line["entrant"]) == (task, entrant)]
            x, y = mean_curve(own)
            panel.plot(x, y, color=f"C{index}", linewidth=1, marker="." if len(x) == 1 else None, label=entrant)
    for panel in axes.flat[len(tasks) :]:
        panel.axis("off")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(entrants), fontsize=8)
    figure.supxlabel("thousand environment steps; * the recipe was developed on this task", fontsize=8)
    figure.supylabel("success", fontsize=8)
    save_figure(figure, path)


def mean_curve(lines: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Thousands of steps and success of every evaluation, each the mean over the runs."""
    numbers = sorted(distinct(lines, "evaluation"))
    inside = [[line for line in lines if line["evaluation"] == number] for number in numbers]
    steps = [fmean(line["steps"] for line in some) / 1000 for some in inside]
    return steps, [fmean(line["success"] for line in some) for some in inside]
