"""What the page says of the study's other commands: advantages or the anchor otherwise, made again from their runs."""

import pytest

from gipo.commands.studies import staleness, staleness_figures
from gipo.commands.studies.run_tables import distinct, read_runs
from gipo.commands.studies.statistics import (
    Array,
    improvement_interval,
    interquartile_mean,
    iqm_difference_interval,
    iqm_interval,
)
from gipo.common.intervals import with_interval
from gipo.common.tables import markdown
from tests.every_age import DATA, NAMES, OBJECTIVES, PAGE, Row, short

FIRST = "as registered"
OTHERS = {"stored advantages": ("claim_stored.csv", (128,))}
FOUR = [OBJECTIVES[name] for name in ("the candidate", "GIPO", "PPO-Clip", "SAPO")]
Cells = dict[tuple[int, str, str], Array]  # by age, command and objective: scores [tasks, seeds]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Runs of the other commands, and their like of the first; `objective` names the command too."""
    first = read_runs(DATA / "claim.csv", staleness.COLUMNS)
    found: list[Row] = []
    for command, (name, ages) in OTHERS.items():
        of = read_runs(DATA / name, staleness.COLUMNS)
        cells = {(row["task"], row["age"], row["objective"], row["seed"]) for row in of}
        assert len(cells) == len(of) == 5 * 3 * 4 * len(ages)
        assert (distinct(of, "age"), set(distinct(of, "objective"))) == (list(ages), set(FOUR))
        found += [{**row, "objective": f"{command}|{row['objective']}"} for row in of]
    tasks = distinct(found, "task")
    assert len(tasks) == 5
    like = [row for row in first if row["task"] in tasks and row["age"] in (16, 128) and row["objective"] in FOUR]
    return [{**row, "objective": f"{FIRST}|{row['objective']}"} for row in like] + found


def of(rows: list[Row], score: str = staleness_figures.NORMALISED) -> Cells:
    found = staleness_figures.scores(rows)[score]
    return {(age, *name.split("|")): values for (age, name), values in found.items()}  # type: ignore[misc]


@pytest.fixture(scope="module")
def returns(rows: list[Row]) -> Cells:
    return of(rows)


def middle(values: Array) -> str:
    return short(with_interval(*iqm_interval(values)))


def more(ours: Array, theirs: Array) -> str:
    return short(with_interval(*iqm_difference_interval(ours, theirs), "+.2f"))


def likelier(ours: Array, theirs: Array) -> str:
    return short(with_interval(*improvement_interval(ours, theirs)))


@pytest.mark.parametrize("age", [128])
def test_returns_of_every_command(returns: Cells, age: int) -> None:
    commands = [FIRST, *(command for command, (_, ages) in OTHERS.items() if age in ages)]
    table = [(NAMES[name], *(middle(returns[age, each, name]) for each in commands)) for name in FOUR]
    assert markdown((f"buffer of {age}", *commands), table) in PAGE


def test_stored_advantages_turn_the_order_round(rows: list[Row], returns: Cells) -> None:
    there = {name: returns[128, FIRST, name] for name in FOUR}
    stored = {name: returns[128, "stored advantages", name] for name in FOUR}
    lost = [more(stored[name], there[name]) for name in FOUR]
    assert "PPO-Clip by {2}, SAPO by {3}, the candidate by {0}, GIPO by {1}".format(*lost) in PAGE
    kept = [interquartile_mean(stored[name]) / interquartile_mean(there[name]) for name in FOUR]
    assert max(kept) < 1 / 3
    assert "Every objective keeps a third of its return at most" in PAGE
    gipo, ppo, sapo = (OBJECTIVES[name] for name in ("GIPO", "PPO-Clip", "SAPO"))
    said = (likelier(there[gipo], there[ppo]), likelier(stored[gipo], stored[ppo]))
    assert "more than PPO-Clip with probability {} with recomputed ones, and {} with stored ones".format(*said) in PAGE
    assert f"its interquartile mean is {more(stored[gipo], stored[sapo])} from SAPO's" in PAGE
    kl = {row["objective"]: short(f"{row['kl']:.2f}") for row in staleness_figures.summarise(rows) if row["age"] == 128}
    moved = [kl[f"{command}|{name}"] for name in (gipo, ppo) for command in (FIRST, "stored advantages")]
    assert "from a KL of {} to {}; PPO-Clip's stays at {} and {}".format(*moved) in PAGE
