"""What the page of the registered study says, against its runs, and what of its plan can be run as written."""

import argparse
import csv
import random
import re
import shlex
from pathlib import Path

import pytest
import yaml

from gipo.commands.studies import cli, staleness
from gipo.commands.studies.options import _find
from gipo.commands.studies.recipe.candidates import TASKS
from tests.needs import needs_sim

PAGE = Path(__file__).parents[4] / "docs" / "every-age.md"


def table(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def plan_of(line: str) -> argparse.Namespace:
    """The options of a command of the page."""
    parser = argparse.ArgumentParser()
    staleness.add_arguments(parser)
    return parser.parse_known_args(shlex.split(line)[2:])[0]


def test_the_study_that_is_registered_can_be_run_as_it_is_written() -> None:
    lines = [
        line for line in PAGE.read_text().splitlines() if re.match(r"gipo-study .*studies/(development|claim)", line)
    ]
    plans = [plan_of(line) for line in lines]
    assert [len(plan.objectives) for plan in plans] == [22, 7, 8, 4, 4, 4]
    runs = [len(plan.tasks) * len(plan.seeds) * len(plan.ages) * len(plan.objectives) for plan in plans]
    said = f"{runs[0]} runs of 40 000 steps and {sum(runs[2:]):,} of 60 000".replace(",", " ")
    assert said in PAGE.read_text()
    assert f"with the {runs[1]} runs of a second round" in PAGE.read_text()
    for plan in plans:
        staleness._refuse(plan)
        for objective in plan.objectives:
            name, *settings = re.split("[:,]", objective)
            _find(name)(**{key: yaml.safe_load(value) for key, value in (each.split("=") for each in settings)})
    development, second, confirmation, *others = plans
    assert (second.tasks, second.seeds, second.ages) == (development.tasks, development.seeds, development.ages)
    assert set(development.tasks) < set(TASKS)
    assert len(set(confirmation.tasks)) == 15
    assert [plan.tasks for plan in others] == [confirmation.tasks[10:]] * 3


@needs_sim
def test_the_five_tasks_were_drawn_by_lot() -> None:
    import metaworld

    (line,) = [line for line in PAGE.read_text().splitlines() if "studies/claim --tasks" in line]
    paper, drawn = (tasks := line.partition("--tasks ")[2].partition(" --")[0].split())[:10], tasks[10:]
    rest = sorted(set(metaworld.ALL_V3_ENVIRONMENTS) - {*paper, *TASKS})
    assert len(rest) == 30
    assert random.Random(17).sample(rest, 5) == drawn


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_tables_of_the_development_are_made_of_its_runs(rounds: int, tmp_path: Path) -> None:
    first = next(
        line for line in PAGE.read_text().splitlines() if line.startswith("gipo-study staleness --out studies/dev")
    )
    of_first = shlex.split(first)[shlex.split(first).index("--objectives") :]
    runs = ["--runs", str(PAGE.parent / "data" / "development.csv"), *(of_first if rounds == 1 else [])]
    cli.main(["staleness", "--out", str(tmp_path), *runs])
    cells = {
        (row["age"], row["objective"]): float(row["normalised return"]) for row in table(tmp_path / "staleness.csv")
    }
    shown = PAGE.read_text().split("*What the first round said*")[1].split("*What the second round said*")[rounds - 1]
    found = set()
    for row in table(tmp_path / "settings.csv"):
        name = row["objective"]
        figures = f"{cells['1', name]:.2f} | {cells['16', name]:.2f} | {float(row['mean']):.3f} |"
        best = r"\*\*" * (row["best of its class"] == "True")
        if re.search(
            rf"^\| {best}{re.escape(name)}{best}(?: \([^)]*\))? \| {re.escape(figures)}$", shown, re.MULTILINE
        ):
            found.add(name)
    assert len(found) == (22 if rounds == 1 else 7)


def test_what_is_frozen_is_the_best_of_each_class(tmp_path: Path) -> None:
    cli.main(["staleness", "--out", str(tmp_path), "--runs", str(PAGE.parent / "data" / "development.csv")])
    best = {row["objective"] for row in table(tmp_path / "settings.csv") if row["best of its class"] == "True"}
    line = next(line for line in PAGE.read_text().splitlines() if "--out studies/claim " in line)
    words = shlex.split(line)
    assert set(words[words.index("--objectives") + 1 :]) == best
