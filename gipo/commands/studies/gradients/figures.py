"""Figures of the GridWorld study: a panel for each target and behaviour."""

from pathlib import Path
from typing import Any

import numpy as np

from gipo.callbacks.plots import pyplot, save_figure
from gipo.commands.studies.gradients.estimators import GIPOS
from gipo.commands.studies.gradients.mdp import ON_POLICY, TARGETS
from gipo.commands.studies.gradients.plane import SAMPLES, Study, lowest

plt = pyplot()

COLOURS = {  # of those that are drawn beside GIPO; the tables have all of them
    "noclip": "black", "ppo": "tab:red", "sapo-1.05": "tab:green", "sapo-2.0": "tab:olive", "aspo": "tab:purple",
    "m2po": "tab:brown", "vespo": "tab:pink", "decoupled-16": "tab:orange", "outward-1": "tab:cyan",
    "outward-16": "darkcyan",
}  # fmt: skip


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
            elif name in GIPOS:
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
            if name in colours and not found.zero[cell]:
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
    figure.legend(handles.values(), handles.keys(), loc="upper center", ncols=min(len(handles), 8), fontsize=7)
    save_figure(figure, path, dpi=100)
