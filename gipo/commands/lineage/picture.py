"""The lineage as a picture: time goes from left to right, one column a generation."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import FancyBboxPatch
from scipy.optimize import isotonic_regression

from gipo.callbacks.plots import pyplot, save_figure
from gipo.commands.lineage.graph import walk
from gipo.commands.lineage.records import How, Key, Kind, LineageNode, printable

plt = pyplot()
COLOURS = {Kind.CHECKPOINT: "#cfe2f7", Kind.ARTIFACT: "#d3ecd0", Kind.LOG: "#fbe3c4", Kind.DATASET: "#fbe3c4"}
WIDTH, HEIGHT = 2.7, 0.72  # of a box, inches
COLUMN, ROW = 3.45, 0.95  # from one box to the next, inches
LETTERS = 29  # of a line in a box
NOTE = "dotted arrow: started from its weights    dashed box: not in this folder"
TOGETHER = 4  # logs of one policy that the same checkpoints learned from; more of them share a box
SWEEPS = 8
MAX_PIXELS = 30_000  # of a side


@dataclass(frozen=True)
class Box:
    """One node, or several logs that have the same neighbours."""

    nodes: tuple[LineageNode, ...]

    @property
    def lines(self) -> tuple[str, str, str]:
        """Title, files and facts, each cut to the width of the box."""
        first, kind = self.nodes[0], self.nodes[0].key.kind.value
        if len(self.nodes) > 1:
            names = [node.files[0].rpartition("/")[2] if node.files else node.key.short for node in self.nodes]
            return f"{len(self.nodes)} {kind}s", _without_middle(names[0]), _without_middle(f"to {names[-1]}")
        return first.key.title, _without_middle(first.where), _without_end(", ".join([*first.placed, *first.facts]))


def draw(graph: Mapping[Key, LineageNode], path: Path, title: str) -> None:
    """Write the picture as a PNG; what is not in the folder has a dashed outline."""
    boxes = _boxes(graph)
    place = {node.key: index for index, box in enumerate(boxes) for node in box.nodes}
    edges = _edges(graph, place)
    columns = _columns(len(boxes), edges)
    rows = _rows(columns, edges)
    size = (COLUMN * (max(columns, default=0) + 1) + 0.4, ROW * (max(rows, default=0) - min(rows, default=0) + 1) + 0.9)
    figure, axes = plt.subplots(figsize=size)
    axes.set_axis_off()
    x, y = COLUMN * np.array(columns), -ROW * rows
    for index, box in enumerate(boxes):
        _draw_box(axes, box, float(x[index]), float(y[index]))
    for (start, end), how in edges.items():
        _draw_edge(axes, how, (float(x[start]), float(y[start])), (float(x[end]), float(y[end])))
    axes.set_xlim(-0.2, size[0] - 0.2)
    below = ROW if How.STARTED in edges.values() else ROW / 2  # room for the arcs
    axes.set_ylim(min(y, default=0.0) - below - 0.1, max(y, default=0.0) + ROW / 2 + 0.1)
    axes.set_title(printable(title), loc="left", fontsize=11, parse_math=False, pad=16)
    axes.text(0.0, 1.0, NOTE, fontsize=7.5, color="#777777", va="bottom", transform=axes.transAxes)
    save_figure(figure, path, dpi=min(130, MAX_PIXELS / max(size)), bbox_inches="tight")


def _boxes(graph: Mapping[Key, LineageNode]) -> list[Box]:
    """Boxes in the order of the tree; a crowd of logs with the same neighbours is one of them."""
    learners: dict[Key, set[Key]] = defaultdict(set)
    for node in graph.values():
        for origin in node.origins:
            learners[origin.key].add(node.key)
    crowds: dict[Any, list[LineageNode]] = defaultdict(list)
    for node, _ in walk(graph):
        alike = node.key.kind is Kind.LOG and bool(node.files)
        neighbours = (tuple(origin.key for origin in node.origins), frozenset(learners[node.key]))
        crowds[neighbours if alike else node.key].append(node)
    parts = [[nodes] if len(nodes) > TOGETHER else [[node] for node in nodes] for nodes in crowds.values()]
    return [Box(tuple(nodes)) for part in parts for nodes in part]


def _edges(graph: Mapping[Key, LineageNode], place: Mapping[Key, int]) -> dict[tuple[int, int], How]:
    """How boxes came from each other, by their indices.

    That a checkpoint learned from an artifact's logs is told by the logs, where they are known.
    """
    edges: dict[tuple[int, int], How] = {}
    for node in graph.values():
        known = any(origin.how is How.LEARNED for origin in node.origins)
        for origin in node.origins:
            ends = place[origin.key], place[node.key]
            if ends[0] != ends[1] and not (known and origin.how is How.PARENT):
                edges.setdefault(ends, origin.how)
    return edges


def _columns(count: int, edges: Mapping[tuple[int, int], How]) -> list[int]:
    """The number of steps on the longest way to each box; a circle, which only a forged file can make, ends it."""
    before = {index: [start for start, end in edges if end == index] for index in range(count)}
    columns, order = [0] * count, TopologicalSorter(before)
    with suppress(CycleError):
        order.prepare()
    while ready := order.get_ready():
        for index in ready:
            columns[index] = max((columns[start] + 1 for start in before[index]), default=0)
        order.done(*ready)
    return columns


def _rows(columns: Sequence[int], edges: Mapping[tuple[int, int], How]) -> np.ndarray:
    """Rows [N] in which neighbours are near each other; within a column, boxes keep the order of the tree."""
    count = len(columns)
    members = [np.flatnonzero(np.array(columns) == column) for column in range(max(columns, default=-1) + 1)]
    rows = np.zeros(count)
    for group in members:
        rows[group] = np.arange(len(group))
    drawn = [ends for ends, how in edges.items() if how is not How.STARTED]
    before = [[start for start, end in drawn if end == index] for index in range(count)]
    after = [[end for start, end in drawn if start == index] for index in range(count)]
    for _ in range(SWEEPS):
        for neighbours, groups in ((after, members[::-1]), (before, members)):
            for group in groups:
                wanted = [np.mean(rows[neighbours[index]]) if neighbours[index] else rows[index] for index in group]
                rows[group] = _apart(np.array(wanted))
    return rows - rows.min(initial=0)


def _apart(wanted: np.ndarray) -> np.ndarray:
    """The places nearest to `wanted` [N], in least squares, that keep the order and are at least 1 apart."""
    # With y_i = z_i + i the constraint is z_i ≤ z_{i+1}
    places = np.arange(len(wanted))
    found: np.ndarray = isotonic_regression(wanted - places).x + places
    return found


def _draw_box(axes: Any, box: Box, x: float, y: float) -> None:
    held = all(node.files for node in box.nodes)
    shape = FancyBboxPatch(
        (x, y - HEIGHT / 2), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.08", linewidth=0.9,
        facecolor=COLOURS[box.nodes[0].key.kind] if held else "white",
        edgecolor="#444444" if held else "#999999", linestyle="-" if held else "--",
    )  # fmt: skip
    axes.add_patch(shape)
    common = {"ha": "left", "va": "center", "parse_math": False, "color": "#111111" if held else "#777777"}
    title, files, facts = box.lines
    axes.text(x + 0.1, y + 0.21, title, fontsize=8.5, weight="bold", **common)
    axes.text(x + 0.1, y, files, fontsize=7.5, **common)
    axes.text(x + 0.1, y - 0.21, facts, fontsize=7.5, **common)


def _draw_edge(axes: Any, how: How, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow between two places, behind the boxes, so that what it passes stays readable."""
    style = {"arrowstyle": "-|>", "color": "#444444", "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
    leaves, reaches = (start[0] + WIDTH, start[1]), end
    if how is How.STARTED:
        style |= {"color": "#7d8790", "linestyle": ":", "connectionstyle": "arc3,rad=0.22"}
        leaves, reaches = ((x + WIDTH / 2, y - HEIGHT / 2) for x, y in (start, end))
    axes.annotate("", xy=reaches, xytext=leaves, arrowprops=style, zorder=0.5)


def _without_middle(line: str) -> str:
    """A line cut to the width of a box in its middle: a file's name ends with what tells it from others."""
    half = (LETTERS - 1) // 2
    return line if len(line) <= LETTERS else f"{line[:half]}…{line[-half:]}"


def _without_end(line: str) -> str:
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 1]}…"
