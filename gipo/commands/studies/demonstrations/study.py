"""What is run in which order, and the files that tell of it."""

import argparse
from collections.abc import Sequence
from concurrent.futures import Executor
from itertools import product
from pathlib import Path

from tqdm.auto import tqdm

from gipo.commands.studies.demonstrations.report import gains, plot, report
from gipo.commands.studies.demonstrations.runs import CLONED, POST_TRAINED, SCORES, Cell, Makers, Row
from gipo.commands.studies.options import (
    add_more,
    add_numbers,
    add_objectives,
    add_runs,
    refuse_no_task,
    refuse_settled,
    refuse_twice,
    refuse_unknown,
)
from gipo.commands.studies.pipeline.processes import made, side_by_side
from gipo.commands.studies.run_tables import Columns, distinct, made_or_read, rate
from gipo.common.errors import UserError
from gipo.common.files import write_text
from gipo.common.parsing import number
from gipo.common.tables import write_table

# The ten tasks of the paper.
TASKS = [
    "assembly-v3", "basketball-v3", "bin-picking-v3", "box-close-v3", "button-press-topdown-v3",
    "button-press-topdown-wall-v3", "button-press-v3", "button-press-wall-v3", "coffee-button-v3", "coffee-pull-v3",
]  # fmt: skip
COLUMNS: Columns = {"task": str, "seed": int, "buffer": int, "objective": str} | {
    f"{name}_{when}": float if name == "return" else rate for name in SCORES for when in ("before", "after")
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which clones are post-trained, how, and for how long."""
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK", help="tasks (default: the paper's ten)")
    add_runs(parser, [22, 64, 99], "run")
    add_objectives(parser, ["GIPO", "PPOClip", "SAPO"], "; options after a colon, PPOClip:clip=0.5")
    add_numbers(parser, "--buffers", [2, 16], 10**6, "iterations of data that the buffer holds")
    add_numbers(parser, "--demonstrations", 10, 10**5, "demonstrations that are cloned")
    parser.add_argument(
        "--noise", type=number(0, 100), default=0.2, help="on the demonstrations (default: %(default)s)"
    )
    add_numbers(parser, "--iterations", 30, 10**6, "iterations of cloning")
    add_numbers(parser, "--frames", 120_000, 10**10, "environment steps of post-training")
    add_numbers(parser, "--frames-per-iteration", 4000, 10**7, "of these between two versions")
    add_numbers(parser, "--episodes", 50, 10**5, "goals of the comparison")
    add_more(parser, "--clone", "cloning")
    add_more(parser, "--post", "post-training")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="a runs.csv: write what it comes to, run nothing")


def run(options: argparse.Namespace) -> None:
    """Make the runs that are not there, and write what came out."""
    rows = made_or_read(options, run_all, COLUMNS, "task", "buffer", "objective")
    refuse_other_clones(rows)
    print(f"\n{write(rows, options.out)}")


def write(rows: Sequence[Row], out: Path) -> str:
    """Tables, figure and text of these runs; the text."""
    table = gains(rows)
    text = report(table, rows)
    write_table(table, out / "demonstrations.csv")
    write_text(text + "\n", out / "demonstrations.md")
    plot(table, out / "demonstrations.png")
    return text


def run_all(options: argparse.Namespace) -> list[Row]:
    """Make what is not made, all tasks of one seed before the next; a row for every run.

    Raises:
        UserError: when runs failed, after all others are made, and the tables of tasks that lack none are written.
    """
    refuse_twice(options, "tasks", "seeds", "objectives", "buffers")
    refuse_unknown(options.objectives)
    refuse_no_task(options.tasks)
    refuse_settled(options, "clone", CLONED)
    refuse_settled(options, "post", POST_TRAINED)
    _refuse_other_evaluation(options)
    makers = Makers(options)
    axes = product(options.seeds, options.tasks, options.buffers, options.objectives)
    plan = [Cell(task, seed, buffer, objective) for seed, task, buffer, objective in axes]
    before = {cell for cell in plan if makers.is_made(cell)}
    rows, failed = list[Row](), list[UserError]()
    bar = tqdm(total=len(plan), initial=len(before), desc="post-training", unit="run", smoothing=0)
    with bar, side_by_side(makers, options.processes) as pool:

        def post_trained(cell: Cell) -> Row:
            makers.post_train(cell)
            if cell not in before:
                bar.update()
            return makers.row(cell)

        for seed in options.seeds:
            cells = [cell for cell in plan if cell.seed == seed]
            cloned, uncloned = _cloned(cells, makers, pool)
            found, unmade = made([pool.submit(post_trained, cell) for cell in cloned])
            rows += found
            failed += [*uncloned, *unmade]
            _write_so_far(rows, options.out)
    if failed:
        raise UserError(
            f"{len(failed)} runs failed, the tables are of tasks that lack none, runs.csv of all others; the first: "
            f"{failed[0]}"
        )
    return rows


def _write_so_far(rows: Sequence[Row], out: Path) -> None:
    """All runs as they are, and the tables of those tasks that lack none."""
    if rows:
        write_table(rows, out / "runs.csv")
    if whole := whole_tasks(rows):
        write(whole, out)


def _cloned(cells: Sequence[Cell], makers: Makers, pool: Executor) -> tuple[list[Cell], list[UserError]]:
    """The cells whose clone is made, for which one of other options will not do; and why others could not be."""
    cloning = {clone: pool.submit(makers.clone, cell) for clone, cell in {each.clone: each for each in cells}.items()}
    _, failed = made(list(cloning.values()))
    return [cell for cell in cells if cloning[cell.clone].exception() is None], failed


def _refuse_other_evaluation(options: argparse.Namespace) -> None:
    """Refuse options by which a clone would be evaluated otherwise than what came of it."""
    of_clone, after = (
        {each.lstrip("-") for each in given if each.lstrip("-").startswith("data.evaluation")}
        for given in (options.clone, options.post)
    )
    if of_clone != after:
        raise UserError(
            f"--clone and --post differ in {', '.join(sorted(of_clone ^ after))}: before and after are compared; "
            "give it to both, or to none"
        )


def refuse_other_clones(rows: Sequence[Row]) -> None:
    """Refuse runs of one task and seed that began with other clones: what they gain is not compared.

    Raises:
        UserError: naming task and seed.
    """
    before: dict[tuple[str, int], tuple[float, ...]] = {}
    for row in rows:
        found = tuple(row[f"{name}_before"] for name in SCORES)
        if before.setdefault((row["task"], row["seed"]), found) != found:
            raise UserError(f"--runs: the runs of {row['task']} with seed {row['seed']} began with different clones")


def whole_tasks(rows: Sequence[Row]) -> list[Row]:
    """The rows of those tasks that have a run of every seed with every buffer and objective that there is."""
    runs = {task: {_run(row) for row in rows if row["task"] == task} for task in distinct(rows, "task")}
    every = set(product(distinct(rows, "seed"), distinct(rows, "buffer"), distinct(rows, "objective")))
    return [row for row in rows if runs[row["task"]] == every]


def _run(row: Row) -> tuple[object, ...]:
    return row["seed"], row["buffer"], row["objective"]
