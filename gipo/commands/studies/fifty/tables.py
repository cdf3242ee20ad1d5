"""What the runs come to: a row for each, a row for each task, and what is said of many tasks."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from gipo.commands.studies.fifty.entrants import Entry, is_development
from gipo.commands.studies.fifty.record import Finished, read_result
from gipo.commands.studies.run_tables import distinct
from gipo.commands.studies.statistics import Array, improvement_interval, iqm_interval, paired_interval
from gipo.common.intervals import difference_with_interval, wilson_interval, with_interval
from gipo.common.tables import counted, markdown

Row = dict[str, Any]
GOOD = 0.9  # success of an evaluation that counts as learned
SIDES = {"developed on": True, "held out": False}
NEVER = float("inf")
FEWEST = 3  # seeds from which something is said of entrants


def row_of(one: Entry, result: Finished, frames: int, command: str) -> Row:
    """The row in fifty.csv of a run that `command` makes again."""
    found: Row = {
        "task": one.task,
        "side": next(name for name, developed in SIDES.items() if developed == is_development(one.task)),
        "entrant": one.entrant,
        "seed": one.seed,
        "frames": frames,
    }
    for name in ("success", "success_last"):
        rate, low, high = wilson_interval(result[name], result["episodes"])
        found |= {name: rate, f"{name}_low": low, f"{name}_high": high}
    first = next(((n, s) for n, s, success in result["evaluations"] if success >= GOOD), ("", ""))
    return {
        **found,
        "return": result["returned"],
        "steps_to_0.9": first[0],
        "seconds_to_0.9": first[1],
        "seconds": result["seconds"],
        "processor": result["processor"],
        "command": command,
    }


def curves(rows: Sequence[Row], out: Path) -> list[Row]:
    """Every evaluation of every run, a row each."""
    return [
        {
            **{name: row[name] for name in ("task", "entrant", "seed")},
            "evaluation": number, "steps": steps, "seconds": seconds, "success": success,
        }
        for row in rows
        for number, (steps, seconds, success) in enumerate(_finished(row, out)["evaluations"], 1)
    ]  # fmt: skip


def _finished(row: Row, out: Path) -> Finished:
    return read_result(out / Entry(row["entrant"], row["task"], row["seed"]).folder)


def report(rows: Sequence[Row]) -> str:
    """The text: what is said of many tasks, those developed on apart from those held out, and a row for every task."""
    few = len(distinct(rows, "seed")) < FEWEST
    parts = [f"From fewer than {FEWEST} seeds nothing is concluded: what follows is what these runs did."] * few
    for side in SIDES:
        inside = [row for row in rows if row["side"] == side]
        if inside:
            count = len(distinct(inside, "task"))
            parts += [f"## Tasks the recipe was {side}: {count}" if SIDES[side] else f"## Tasks {side}: {count}"]
            parts += [summary(inside), by_task(inside)]
    return "\n\n".join(parts)


def summary(rows: Sequence[Row]) -> str:
    """A row for every entrant, over the tasks that it ran on; compared with the first one on those that both did.

    Of fewer seeds than FEWEST it has what the runs did, and nothing that is inferred from them.
    """
    first, few = rows[0]["entrant"], len(distinct(rows, "seed")) < FEWEST
    head = (
        "entrant", "tasks", "success, mean", "success, IQM", "success at the last step, IQM", "tasks ≥ .9",
        "median processor seconds to .9", "probability that the first is better",
        "how much higher its mean is (interval over tasks)", "tasks on which it is at least as good",
    )  # fmt: skip
    table = []
    for entrant in distinct(rows, "entrant"):
        own = [row for row in rows if row["entrant"] == entrant]
        tasks = distinct(own, "task")
        per_task = _means(scores(own, "success"))
        table.append([
            entrant, len(tasks), _mean(rows, entrant, first),
            *(("–", "–") if few else (_iqm(own, "success"), _iqm(own, "success_last"))),
            int((per_task >= GOOD).sum()), _seconds(rows, entrant, first),
            *(("", "", "") if entrant == first else _compared(rows, entrant, first, few)),
        ])  # fmt: skip
    return markdown(head, table)


def by_task(rows: Sequence[Row]) -> str:
    """A row for every task: of each entrant mean success at any step, its seeds, and steps to the first ≥ .9."""
    entrants = distinct(rows, "entrant")
    table = []
    for task in distinct(rows, "task"):
        cells: list[str] = []
        for entrant in entrants:
            own = [row for row in rows if (row["task"], row["entrant"]) == (task, entrant)]
            if not own:
                cells.append("–")
                continue
            seeds = " ".join(f"{row['success']:.2f}" for row in own)
            reached = median(row["steps_to_0.9"] or NEVER for row in own)
            after = f", {reached / 1000:.0f}k" if reached < NEVER else ""
            cells.append(f"{fmean(row['success'] for row in own):.2f} ({seeds}){after}")
        table.append([task, *cells])
    return markdown(("task", *(f"{entrant}: success (seeds), steps to .9" for entrant in entrants)), table)


def scores(rows: Sequence[Row], name: str) -> Array:
    """[tasks, seeds] of a score of one entrant's rows."""
    by = {(row["task"], row["seed"]): row[name] for row in rows}
    return np.array([[by[task, seed] for seed in distinct(rows, "seed")] for task in distinct(rows, "task")], float)


def _means(found: Array) -> Array:
    """Means over seeds of scores [tasks, seeds], equal where they differ by rounding alone."""
    means: Array = found.mean(1).round(9)
    return means


def _mean(rows: Sequence[Row], entrant: str, first: str) -> str:
    """Mean success over the tasks of an entrant; that of the first one on those of both, where it had others."""
    means = {}
    for name in (entrant, first):
        own = [row for row in rows if row["entrant"] == name]
        means[name] = dict(zip(distinct(own, "task"), _means(scores(own, "success")).tolist(), strict=True))
    both = means[entrant].keys() & means[first].keys()
    mean = f"{np.mean([*means[entrant].values()]):.2f}"
    if not both or means[entrant].keys() == means[first].keys():
        return mean
    return f"{mean} ({first}: {fmean(means[first][task] for task in both):.2f} on {counted(len(both), 'task')})"


def _iqm(rows: Sequence[Row], name: str) -> str:
    middle, low, high = iqm_interval(scores(rows, name))
    return with_interval(middle, max(0.0, low), min(1.0, high))


def _seconds(rows: Sequence[Row], entrant: str, first: str) -> str:
    """Median seconds to the first evaluation ≥ .9 of the runs that get there; the first one's beside it.

    The two are of runs of one task and one seed in which both get there: other seeds may have had other processors.
    """
    to = {name: _seconds_to(rows, name) for name in (entrant, first)}
    both = to[entrant].keys() & to[first].keys()
    if not both:
        return "–"
    own, other = (median(to[name][run] for run in both) for name in (entrant, first))
    return f"{own:.0f}" if entrant == first else f"{own:.0f} ({first}: {other:.0f}, {counted(len(both), 'run')})"


def _seconds_to(rows: Sequence[Row], entrant: str) -> dict[tuple[str, int], float]:
    """Task and seed → seconds, of the runs that get there."""
    return {
        (row["task"], row["seed"]): row["seconds_to_0.9"]
        for row in rows
        if row["entrant"] == entrant and row["seconds_to_0.9"]
    }


def _compared(rows: Sequence[Row], entrant: str, first: str, few: bool) -> list[str]:
    """How probably and by how much success of the first entrant is higher, and on how many tasks it is not lower."""
    ours, theirs = ([row for row in rows if row["entrant"] == name] for name in (first, entrant))
    both = set(distinct(ours, "task")) & set(distinct(theirs, "task"))
    if not both:
        return ["–", "–", "–"]
    a, b = (scores([row for row in side if row["task"] in both], "success") for side in (ours, theirs))
    better = f"{int((_means(a) >= _means(b)).sum())} of {len(a)}"
    if few:
        return ["–", "–", better]
    higher = difference_with_interval(*paired_interval(_means(a) - _means(b))) if len(a) > 1 else "–"
    return [with_interval(*improvement_interval(a, b)), higher, better]
