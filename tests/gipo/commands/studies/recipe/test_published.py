"""The final of the race that is published: what the page says of it over tasks is what its runs come to."""

import csv
from pathlib import Path

import numpy as np
import pytest

from gipo.commands.studies.recipe.dealing import deal
from gipo.commands.studies.recipe.study import LEVELS
from gipo.commands.studies.statistics import Array, paired_interval
from gipo.common.intervals import with_interval

ROOT = Path(__file__).parents[5]
with (ROOT / "docs" / "data" / "recipe_final.csv").open() as file:
    ROWS = list(csv.DictReader(file))
TASKS = sorted({row["task"] for row in ROWS})


def scores(recipe: str, key: str) -> Array:
    """[12, 3] of every task and seed."""
    return np.array([
        [float(row[key]) for row in ROWS if (row["recipe"], row["task"]) == (recipe, task)] for task in TASKS
    ])  # fmt: skip


def gained(key: str) -> Array:
    """[12] what the winner adds on each task, mean of its seeds."""
    difference: Array = (scores("winner", key) - scores("default", key)).mean(1)
    return difference


def short(gain: Array) -> str:
    return with_interval(*paired_interval(gain), "+.2f").replace("0.", ".").replace("-", "−")


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("docs/recipe.md", "Over tasks the winner adds {final} to the success at the end, and {area} to the area"),
        ("docs/recipe.md", "at the end it is higher on {higher} of the twelve, level on {level} and lower on {lower}"),
        ("docs/evidence.md", "any-step success .67 → .77, difference {final} (interval over the twelve tasks)"),
        ("README.md", ".67 with the previous recipe, difference {final} over tasks"),
    ],
)
def test_what_the_winner_adds(page: str, sentence: str) -> None:
    final = gained("final")
    told = {
        "final": short(final), "area": short(gained("area")), "higher": (final > 1e-9).sum(),
        "level": (np.abs(final) < 1e-9).sum(), "lower": (final < -1e-9).sum(),
    }  # fmt: skip
    assert sentence.format(**told) in (ROOT / page).read_text()


def test_the_means_that_are_told() -> None:
    assert [round(float(scores(recipe, "final").mean()), 2) for recipe in ("default", "winner")] == [0.67, 0.77]


def test_how_often_a_factor_is_off_its_default() -> None:
    trials = deal(LEVELS, TASKS, [0], runs=72, share=0.25, seed=0)
    off = [sum(trial.levels[factor] != levels[0] for trial in trials) for factor, levels in LEVELS.items()]
    assert f"off its default in {min(off)} to {max(off)} of the 72 runs" in (ROOT / "docs" / "recipe.md").read_text()
