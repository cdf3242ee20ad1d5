"""Figures as files: the curves of a run, and what the studies draw."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gipo.common.files import whole_file

Rows = list[dict[str, float]]
COLOURS, MARKERS = 10, "os^D"  # matplotlib has ten colours in turn: lines beyond have another marker
LINES = {
    "success": {
        "val/success": "evaluation, any step",
        "val/success_last": "evaluation, last step",
        "train/success": "training, any step",
    },
    "return": {"val/return": "evaluation", "train/return": "training"},
    "age of a sample [policy versions]": {"staleness/age_mean": "mean", "staleness/age_p95": "95th percentile"},
    "share": {
        "ess/all": "effective sample size",
        "weight/mean": "mean trust weight",
        "weight/ppo_dead": "dead to PPO's clip",
        "weight/suppressed": "weight < 0.001",
        "contribution/old_share": "pull of samples ≥ 10 versions old",
    },
}


AXES = {"frames": "environment steps", "iterations": "iterations"}


def plot_curves(rows: Rows, path: Path, title: str, axis: str = "frames") -> None:
    """Success, return, age of the data, and how much of it still moves the policy, against one of AXES."""
    plt = pyplot()
    figure, ((success, reward), (age, mechanism)) = plt.subplots(2, 2, figsize=(11, 7))
    figure.subplots_adjust(left=0.07, right=0.985, top=0.925, bottom=0.075, wspace=0.19, hspace=0.23)  # drawn once
    figure.suptitle(title)
    evaluated = [row for row in rows if "val/success_low" in row]
    if evaluated:
        x = [row[axis] for row in evaluated]
        low, high = ([row[f"val/success_{side}"] for row in evaluated] for side in ("low", "high"))
        success.fill_between(x, low, high, alpha=0.2, label="evaluation, 95 % interval")
    for axes, label, limits in (
        (success, "success", (0, 1.02)),
        (reward, "return", None),
        (age, "age of a sample [policy versions]", None),
        (mechanism, "share", (0, 1.02)),
    ):
        _draw(axes, rows, axis, LINES[label], label, limits)
    save_figure(figure, path)


def draw_intervals(axes: Any, lines: Mapping[str, Sequence[Mapping[str, Any]]], middle: str) -> None:
    """Draw a line with error bars for each label, side by side: of each row `middle`, from its `low` to its `high`."""
    for number, (label, rows) in enumerate(lines.items()):
        x = np.arange(len(rows)) + 0.05 * (number - (len(lines) - 1) / 2)
        y, low, high = (np.array([row[key] for row in rows]) for key in (middle, "low", "high"))
        colour, marker = f"C{number % COLOURS}", MARKERS[number // COLOURS % len(MARKERS)]
        axes.errorbar(x, y, (y - low, high - y), color=colour, marker=marker, capsize=3, label=label)
    axes.grid(alpha=0.3)


def save_figure(figure: Any, path: Path, dpi: float = 130, **options: Any) -> None:
    """Write a matplotlib figure as PNG, with options of its `savefig`, and close it."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format="png", **options)
    pyplot().close(figure)


def pyplot() -> Any:
    """The `pyplot` of matplotlib, for files alone; its import takes half a second, which a run does not begin with."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def _draw(
    axes: Any, rows: Rows, axis: str, columns: dict[str, str], label: str, limits: tuple[float, float] | None = None
) -> None:
    for column, name in columns.items():
        points = [(row[axis], row[column]) for row in rows if column in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
    axes.set_xlabel(AXES[axis])
    axes.set_ylabel(label)
    if limits:
        axes.set_ylim(*limits)
    if axes.has_data():
        axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
