"""The rounds of the race and its final, and the files that tell of them."""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm.auto import tqdm

from gipo.commands.studies.options import (
    add_more,
    add_numbers,
    add_runs,
    refuse_no_task,
    refuse_settled,
    refuse_twice,
)
from gipo.commands.studies.pipeline.forks import Forks
from gipo.commands.studies.recipe.candidates import FACTORS, TASKS
from gipo.commands.studies.recipe.dealing import Levels, Trial, deal
from gipo.commands.studies.recipe.effects import Alternative, Effect, better_half, effects, winner
from gipo.commands.studies.recipe.report import report
from gipo.commands.studies.recipe.runs import EVERY, Race, Row
from gipo.common.errors import UserError, nearest
from gipo.common.files import write_text

LEVELS: Levels = {factor: list(levels) for factor, levels in FACTORS.items()}
SHARE = 0.25  # of the runs of a round in which a factor is not at its default
DEFAULT = "default"
Recipe = Mapping[str, str]  # the level of every factor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `gipo-study recipe`."""
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK", help="tasks it is developed on")
    add_runs(parser, [0, 1, 2], "run")
    add_numbers(parser, "--rounds", 3, 20, "rounds, each with half of the alternatives of the one before")
    add_numbers(parser, "--runs", 72, 10**5, "runs of a round")
    add_numbers(parser, "--frames", 60_000, 10**10, "environment steps of a run of a round")
    add_numbers(parser, "--final-frames", 120_000, 10**10, "environment steps of a run of the final")
    parser.add_argument(
        "--finalists", nargs="*", default=[], metavar="CHANGES", help="more recipes for the final: FACTOR=LEVEL,…"
    )
    parser.add_argument(
        "--factors", nargs="+", default=list(LEVELS), choices=LEVELS, metavar="FACTOR",
        help=f"what is raced: some of {', '.join(LEVELS)}; the others stay at their defaults",
    )  # fmt: skip
    add_more(parser, "--train", "`gipo fit`, of all runs")


def run(options: argparse.Namespace) -> None:
    """Make the runs that are not there, and write what came out."""
    refuse_twice(options, "tasks", "seeds")
    finalists = {each: finalist(each) for each in options.finalists}
    refuse_settled(options, "train", settled(options.factors, finalists.values()), settled(FACTORS, []))
    refuse_too_few(options)
    refuse_no_task(options.tasks)
    total = options.rounds * options.runs + len(options.tasks) * len(options.seeds) * (2 + len(finalists))
    with tqdm(total=total, desc="recipe", unit="run", smoothing=0) as bar:
        forks = Forks()
        rounds, found = race(options, forks, bar)
        chosen = {DEFAULT: {factor: levels[0] for factor, levels in LEVELS.items()}, "winner": winner(found, LEVELS)}
        last = final(options, _distinct({**chosen, **finalists}), forks, bar)
    text = report(found, LEVELS, chosen["winner"], rounds, last)
    write_text(text + "\n", options.out / "recipe.md")
    print(f"\n{text}")


def refuse_too_few(options: argparse.Namespace) -> None:
    """Refuse runs that would not be evaluated, and rounds in which an alternative would have none.

    Raises:
        UserError: naming the option.
    """
    most = max(options.factors, key=lambda factor: len(LEVELS[factor]))
    if options.runs < len(LEVELS[most]) - 1:
        raise UserError(f"--runs {options.runs}: {most} has {len(LEVELS[most]) - 1} alternatives, each to be run")
    if any(option.startswith("trainer.check_val_every_n_epoch") for option in options.train):
        return
    for name, frames in (("--frames", options.frames), ("--final-frames", options.final_frames)):
        if frames < EVERY:
            raise UserError(f"{name} {frames}: a run would not be evaluated, which it is every {EVERY} steps")


def race(options: argparse.Namespace, forks: Forks, bar: tqdm) -> tuple[list[Row], dict[Alternative, Effect]]:
    """All rounds: their rows, and what every alternative adds by all of them."""
    runs = Race(FACTORS, options.frames, options.train, options.processes, forks)
    raced = {factor: every if factor in options.factors else every[:1] for factor, every in LEVELS.items()}
    levels: Levels = raced
    trials: list[Trial] = []
    rows: list[Row] = []
    found: dict[Alternative, Effect] = {}
    for number in range(1, options.rounds + 1):
        dealt = deal(levels, options.tasks, options.seeds, options.runs, SHARE, seed=number)
        numbered: Row = {"round": number}
        folders = {
            options.out / f"round-{number}" / f"{index:04}": (numbered, trial) for index, trial in enumerate(dealt)
        }
        rows = runs.table(folders, options.out / "rounds.csv", bar, rows)
        trials += dealt
        found = effects(trials, [row["area"] for row in rows], LEVELS)
        left = {each: effect for each, effect in found.items() if each.level in levels[each.factor]}
        levels = better_half(left, raced)
    return rows, found


def final(options: argparse.Namespace, recipes: Mapping[str, Recipe], forks: Forks, bar: tqdm) -> list[Row]:
    """Rows of all recipes on all tasks with all seeds, recipes in turn within a seed."""
    runs = Race(FACTORS, options.final_frames, options.train, options.processes, forks)
    cells = [(seed, task, name) for seed in options.seeds for task in options.tasks for name in recipes]
    trials: dict[Path, tuple[Row, Trial]] = {
        options.out / "final" / name / f"{task}-{seed}": ({"recipe": name}, Trial(task, seed, recipes[name]))
        for seed, task, name in cells
    }
    return runs.table(trials, options.out / "final.csv", bar, [])


def settled(factors: Iterable[str], finalists: Iterable[Recipe]) -> set[str]:
    """Options of `gipo fit` that differ between runs: what is raced, and what the finalists change."""
    changed = {name for recipe in finalists for name, level in recipe.items() if level != LEVELS[name][0]}
    levels = [level for factor in {*factors, *changed} for level in FACTORS[factor].values()]
    return {"data.task", "data.total_frames", "seed_everything"} | {
        option.partition("=")[0] for level in levels for option in level
    }


def _distinct(recipes: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Recipes without those that another name before them has."""
    first = {tuple(sorted(recipe.items())): name for name, recipe in reversed(list(recipes.items()))}
    return {name: recipe for name, recipe in recipes.items() if first[tuple(sorted(recipe.items()))] == name}


def finalist(changes: str) -> dict[str, str]:
    """Levels of a recipe that is named by what it changes: `kl=0,updates=16x512`.

    Raises:
        UserError: naming the nearest factor or the levels.
    """
    chosen = {factor: levels[0] for factor, levels in LEVELS.items()}
    for change in re.split(r",(?=\w+=)", changes):  # a level may have a comma of its own
        factor, _, level = change.partition("=")
        if factor not in LEVELS:
            raise UserError(
                f"--finalists {changes}: there is no factor {factor!r}; the nearest: {nearest(factor, LEVELS)}"
            )
        if level not in LEVELS[factor]:
            raise UserError(
                f"--finalists {changes}: {factor} has no level {level!r}; it has {', '.join(LEVELS[factor])}"
            )
        chosen[factor] = level
    return chosen
