"""What the page says of the study's other commands: advantages or the anchor otherwise, made again from their runs."""

import pytest

from gipo.commands.studies import staleness, staleness_figures
from gipo.commands.studies.run_tables import distinct, read_runs
from gipo.commands.studies.statistics import (
    Array,
    improvement_interval,
    iqm_difference_interval,
    iqm_interval,
)
from gipo.common.intervals import with_interval
from gipo.common.tables import markdown
from tests.every_age import DATA, NAMES, OBJECTIVES, PAGE, Row, short
from tests.pages import ROOT

CHOICE, README = ((ROOT / name).read_text() for name in ("docs/objectives.md", "README.md"))
FIRST = "as registered"
OTHERS = {"stored advantages": ("claim_stored.csv", (128,)), "no anchor": ("claim_free.csv", (16, 128))}
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


@pytest.mark.parametrize("age", [16, 128])
def test_returns_of_every_command(returns: Cells, age: int) -> None:
    commands = [FIRST, *(command for command, (_, ages) in OTHERS.items() if age in ages)]
    table = [(NAMES[name], *(middle(returns[age, each, name]) for each in commands)) for name in FOUR]
    assert markdown((f"buffer of {age}", *commands), table) in PAGE


def test_stored_advantages_take_gipos_lead(rows: list[Row], returns: Cells) -> None:
    there = {name: returns[128, FIRST, name] for name in FOUR}
    stored = {name: returns[128, "stored advantages", name] for name in FOUR}
    lost = [more(stored[name], there[name]) for name in FOUR]
    assert "PPO-Clip by {2}, SAPO by {3}, the candidate by {0} and GIPO by {1}.".format(*lost) in PAGE
    gipo, ppo = (OBJECTIVES[name] for name in ("GIPO", "PPO-Clip"))
    said = (likelier(there[gipo], there[ppo]), likelier(stored[gipo], stored[ppo]))
    assert "more than PPO-Clip with probability {} with recomputed ones, and {} with stored ones".format(*said) in PAGE
    kl = divergences(rows)
    moved = [kl[128, f"{command}|{name}"] for name in (gipo, ppo) for command in (FIRST, "stored advantages")]
    assert "from a KL of {} to {}; PPO-Clip's stays at {} and {}".format(*moved) in PAGE
    assert f"{said[1]} is the probability that a run of it returns more than one of PPO-Clip" in README


def divergences(rows: list[Row]) -> dict[tuple[int, str], str]:
    return {(row["age"], row["objective"]): short(f"{row['kl']:.2f}") for row in staleness_figures.summarise(rows)}


def test_without_the_anchor_wide_weights_lose_and_narrow_ones_do_not(rows: list[Row], returns: Cells) -> None:
    kl, free = divergences(rows), "no anchor"
    table = []
    for name in FOUR:
        change = {age: more(returns[age, free, name], returns[age, FIRST, name]) for age in (16, 128)}
        moved = {age: " → ".join(kl[age, f"{each}|{name}"] for each in (FIRST, free)) for age in (16, 128)}
        table.append((NAMES[name], change[16], moved[16], change[128], moved[128]))
    ages = [column for age in (16, 128) for column in (f"buffer of {age}: change of return", "KL")]
    assert markdown(("without the anchor", *ages), table) in PAGE
    wide = [float(kl[age, f"{free}|{OBJECTIVES[name]}"]) for age in (16, 128) for name in ("GIPO", "SAPO")]
    assert short(f"their KL grows to {min(wide):.2f} and more.") in PAGE
    candidate, gipo, ppo = (OBJECTIVES[name] for name in ("the candidate", "GIPO", "PPO-Clip"))
    ahead = [likelier(returns[age, free, candidate], returns[age, free, gipo]) for age in (16, 128)]
    assert "more than GIPO with probability {} (16) and {} (128)".format(*ahead) in PAGE
    level = likelier(returns[128, free, gipo], returns[128, free, ppo])
    assert f"than PPO-Clip with probability {level} with a buffer of 128, where it was" in PAGE
    assert f"{more(returns[128, free, gipo], returns[128, FIRST, gipo])} with a buffer of 128" in CHOICE


def test_what_is_said_to_be_lost_is_by_its_interval(returns: Cells) -> None:
    def change(age: int, command: str, name: str) -> tuple[float, float]:
        both = (returns[age, each, OBJECTIVES[name]] for each in (command, FIRST))
        return iqm_difference_interval(*both)[1:]

    assert all(change(128, "stored advantages", name)[1] < 0 for name in ("the candidate", "GIPO", "PPO-Clip", "SAPO"))
    lost = {(age, name) for age in (16, 128) for name in OBJECTIVES if (age, "no anchor", OBJECTIVES[name]) in returns
            and change(age, "no anchor", name)[1] < 0}  # fmt: skip
    assert lost == {(128, "GIPO"), (16, "SAPO"), (128, "SAPO")}
    low, high = change(16, "no anchor", "GIPO")
    assert low < 0 <= round(high, 2) == 0  # "GIPO's interval with 16 iterations ends at 0"
    gipo, ppo, candidate = (OBJECTIVES[name] for name in ("GIPO", "PPO-Clip", "the candidate"))
    stored = (returns[128, "stored advantages", name] for name in (gipo, ppo))
    assert improvement_interval(*stored)[2] < 0.5  # "GIPO's lead goes with it", and more
    for ours, theirs in ((candidate, gipo), (gipo, ppo)):
        low, high = improvement_interval(returns[128, "no anchor", ours], returns[128, "no anchor", theirs])[1:]
        assert low < 0.5 < high  # "is not behind", "no longer surely ahead"
