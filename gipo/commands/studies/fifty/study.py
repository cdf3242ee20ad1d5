"""All fifty tasks of MetaWorld v3 with one recipe, and rivals beside it on the same goals.

Every entrant trains on every task with every seed, one run a core, and is judged by the same episodes of MetaWorld's
own simulator: 20 every 10 000 environment steps (--every), whose time does not count, and 50 on other goals at the end.
Ours are `gipo fit` with its default recipe and an objective each; the others are as their packages come. What takes
hours a run (SAC) runs on tasks that are drawn by lot.

  gipo-study fifty --tasks reach-v3 push-v3 --seeds 22 --entrants GIPO 'SB3 PPO' --frames 50000

Writes fifty.csv (every run: success at any and at the last step of the test with 95 % intervals, return, steps and
processor seconds of training to the first evaluation with success ≥ .9, the processor, and the command that makes it
again), fifty.md (a row for every task; tasks that the recipe was developed on apart), curves.csv and fifty.png. A run
that has ended is not made again: the same command goes on where it was stopped. With --so-far it makes no run, and
writes what those that have ended come to.
"""

import argparse
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from gipo.commands.studies.fifty import entrants
from gipo.commands.studies.fifty.entrants import Entry
from gipo.commands.studies.fifty.figure import draw
from gipo.commands.studies.fifty.record import RESULT, Record, read_result
from gipo.commands.studies.fifty.rivals import RIVALS, train
from gipo.commands.studies.fifty.tables import Row, curves, report, row_of
from gipo.commands.studies.options import add_more, add_numbers, add_runs, refuse_settled, refuse_twice
from gipo.commands.studies.pipeline.forks import FIT, Forks
from gipo.commands.studies.pipeline.once import is_done, once
from gipo.commands.studies.pipeline.processes import all_made, side_by_side
from gipo.commands.studies.pipeline.versions import OneVersion
from gipo.common.errors import UserError, nearest
from gipo.common.files import write_text
from gipo.common.tables import write_table

COMPETE = "compete"  # what `once` knows a rival's run by


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `gipo-study fifty`."""
    parser.add_argument(
        "--tasks", nargs="+", default=all_tasks(), metavar="TASK", help="MetaWorld tasks (default: all fifty)"
    )
    parser.add_argument(
        "--entrants", nargs="+", default=entrants.DEFAULT, metavar="NAME",
        help=f"some of {', '.join((*entrants.OURS, *entrants.THEIRS))} (default: %(default)s)",
    )  # fmt: skip
    add_runs(parser, [22, 64, 99], "run")
    add_numbers(parser, "--frames", 120_000, 10**10, "environment steps of a run")
    add_numbers(parser, "--every", 10_000, 10**10, "environment steps from one evaluation to the next")
    add_numbers(parser, "--lot", 8, 50, "tasks of those that take hours a run, drawn by lot")
    add_numbers(parser, "--lot-seed", 0, 2**31 - 1, "seed of the lot", least=0)
    add_more(parser, "--train", "`gipo fit`, of all runs of ours")
    parser.add_argument("--so-far", action="store_true", help="make no run: tables of those that have ended")


def run(options: argparse.Namespace) -> None:
    """Make the runs that are not there, and write what came out."""
    entrants.refuse_unknown(options.entrants)
    refuse_unknown_tasks(options.tasks)
    refuse_twice(options, "tasks", "entrants", "seeds")
    refuse_settled(options, "train", entrants.SETTLED)
    first, *others = options.entrants
    if first in entrants.LOT and others and options.lot < len(options.tasks):
        raise UserError(f"--entrants {first}: others are compared with the first, which must run on all tasks")
    if options.every > options.frames:
        raise UserError(f"--every {options.every}: a run of {options.frames} frames would not be evaluated")
    runs = entrants.plan(options.entrants, options.tasks, options.seeds, options.lot, options.lot_seed)
    rows, note = so_far(runs, options) if options.so_far else (run_all(runs, options), "")
    write_table(rows, options.out / "fifty.csv")
    lines = curves(rows, options.out)
    write_table(lines, options.out / "curves.csv")
    draw(lines, options.out / "fifty.png")
    text = note + report(rows)
    write_text(text + "\n", options.out / "fifty.md")
    print(f"\n{text}")


def all_tasks() -> list[str]:
    """The fifty, in the order of the alphabet."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return sorted(ALL_V3_ENVIRONMENTS)


def refuse_unknown_tasks(tasks: Sequence[str]) -> None:
    """Refuse what is no task of MetaWorld, before a first run.

    Raises:
        UserError: naming the nearest.
    """
    known = all_tasks()
    for task in tasks:
        if task not in known:
            raise UserError(f"--tasks {task}: MetaWorld has no such task; the nearest: {nearest(task, known)}")


def run_all(runs: Sequence[Entry], options: argparse.Namespace) -> list[Row]:
    """A row for every run, in order."""
    forks = Forks()
    made = {one for one in runs if (options.out / one.folder / RESULT).exists()}

    def make(one: Entry) -> Row:
        folder = options.out / one.folder
        if one.entrant in entrants.OURS:
            forks.fit(folder, one.options(options.frames, options.every, options.train))
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        elif not has_ended(one, options):
            forks.run(folder, compete, folder, one, options.frames, options.every)
        if one not in made:
            bar.update()
        return row(one, options)

    with (
        tqdm(total=len(runs), initial=len(made), desc="fifty", unit="run", smoothing=0) as bar,
        side_by_side(forks, options.processes) as pool,
    ):
        return all_made([pool.submit(make, one) for one in runs], options.out / "fifty.csv")


def so_far(runs: Sequence[Entry], options: argparse.Namespace) -> tuple[list[Row], str]:
    """Rows of runs that have ended: of an entrant on a task all seeds or none, and none without the first entrant's.

    Returns:
        The rows, and a paragraph of what is not among them.

    Raises:
        UserError: when there is no such task, or two runs were made by versions of other defaults.
    """
    ended = [one for one in runs if has_ended(one, options)]
    seeds = Counter((one.entrant, one.task) for one in ended)
    whole = {one for one, count in seeds.items() if count == len(options.seeds)}
    first = options.entrants[0]
    found = [one for one in ended if {(one.entrant, one.task), (first, one.task)} <= whole]
    if not found:
        raise UserError(f"--so-far: on no task have all runs of {first} ended in {options.out} (--seeds says of which)")
    version = OneVersion()
    for one in found:
        if one.entrant in entrants.OURS:
            version.add(options.out / one.folder, one.options(options.frames, options.every, options.train))
    left = [one for one in ended if one not in found]
    note = f"So far {len(ended)} of {len(runs)} runs have ended.\n\n"
    if left:
        tasks = ", ".join(dict.fromkeys(one.task for one in left))
        note = (
            f"{note.strip()} {len(left)} of these are left out: of their entrant, or of {first}, not all seeds of the "
            f"task have ended ({tasks}).\n\n"
        )
    return [row(one, options) for one in found], note


def has_ended(one: Entry, options: argparse.Namespace) -> bool:
    """Whether a run has come to its end.

    Raises:
        UserError: when its folder is of a run with other options.
    """
    folder = options.out / one.folder
    if one.entrant in entrants.OURS:
        return is_done(folder, FIT, one.options(options.frames, options.every, options.train))
    return is_done(folder, COMPETE, one.words(options.frames, options.every))


def row(one: Entry, options: argparse.Namespace) -> Row:
    """The row of a run that has ended."""
    again = one.command(options.frames, options.every, options.train)
    return row_of(one, read_result(options.out / one.folder), options.frames, again)


def compete(folder: Path, one: Entry, frames: int, every: int) -> None:
    """In a process of its own: a rival's run."""

    def work(_: int) -> None:
        record = Record(one.task, every)
        record.end(train(RIVALS[entrants.THEIRS[one.entrant]], one.task, one.seed, frames, record), folder)

    once(folder, COMPETE, one.words(frames, every), work, fresh=True)
