"""Runs of peers as a table: medians over the seeds of each peer on each task."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from gipo.common.tables import markdown

HEAD = (
    "task", "peer", "simulator", "reached", "environment steps", "seconds of training", "steps/s",
    "processor s / 1 000 steps", "start-up s", "peak MiB",
)  # fmt: skip


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Markdown; where fewer than half of the runs of a peer reached the success, they have no median to it."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        group = run["task"], " ".join([run["peer"], *run["options"]]), run["simulator"]
        groups.setdefault(group, []).append(run)
    return markdown(HEAD, [[*key, *_row(group)] for key, group in groups.items()])


def _row(group: list[dict[str, Any]]) -> list[str]:
    reached = sum(run["steps_to"] is not None for run in group)
    to = [_median_reached(group, name) for name in ("steps_to", "seconds_to")]
    rest = [median(run[name] for run in group) for name in _MEASURED]
    return [f"{reached} of {len(group)}", *to, *map(_number, rest)]


_MEASURED = ("steps_per_s", "processor_s_per_1000_steps", "startup_s", "peak_mib")
NEEDED = {"task", "peer", "options", "simulator", "steps_to", "seconds_to", *_MEASURED}  # of a run


def _median_reached(group: list[dict[str, Any]], name: str) -> str:
    """Median where a run that never got there counts as infinitely long."""
    value = median(float("inf") if run[name] is None else run[name] for run in group)
    return "–" if value == float("inf") else _number(value)


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 100 else f"{value:.2g}"
