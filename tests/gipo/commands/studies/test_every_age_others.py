"""What the page says of the study's other commands: another estimator, advantages or anchor, made from their runs."""

import pytest

from gipo.commands.studies import staleness, staleness_figures
from gipo.commands.studies.run_tables import distinct, read_runs
from gipo.commands.studies.statistics import (
    Array,
    Interval,
    improvement_interval,
    iqm_difference_interval,
    iqm_interval,
)
from gipo.common.intervals import with_interval
from gipo.common.tables import markdown
from tests.every_age import DATA, NAMES, OBJECTIVES, PAGE, Row, short
from tests.pages import ROOT

CHOICE, LIMITS, README = ((ROOT / name).read_text() for name in ("docs/objectives.md", "docs/limits.md", "README.md"))
FIRST = "as registered"
OTHERS = {
    "V-trace": ("claim_vtrace.csv", (16, 128)),
    "stored advantages": ("claim_stored.csv", (128,)),
    "no anchor": ("claim_free.csv", (16, 128)),
}
FOUR_NAMES = ("the candidate", "GIPO", "PPO-Clip", "SAPO")
FOUR = [OBJECTIVES[name] for name in FOUR_NAMES]
COMMANDS = (FIRST, *OTHERS)
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


def change(returns: Cells, age: int, command: str, name: str) -> Interval:
    """How another command changes what an objective, by the page's name of it, returns."""
    return iqm_difference_interval(*(returns[age, each, OBJECTIVES[name]] for each in (command, FIRST)))


def likelier(ours: Array, theirs: Array) -> str:
    return short(with_interval(*improvement_interval(ours, theirs)))


@pytest.mark.parametrize("age", [16, 128])
def test_returns_of_every_command(returns: Cells, age: int) -> None:
    commands = [FIRST, *(command for command, (_, ages) in OTHERS.items() if age in ages)]
    table = [(NAMES[name], *(middle(returns[age, each, name]) for each in commands)) for name in FOUR]
    assert markdown((f"buffer of {age}", *commands), table) in PAGE


def test_gipos_lead_is_there_as_registered_alone(returns: Cells) -> None:
    gipo, ppo = (OBJECTIVES[name] for name in ("GIPO", "PPO-Clip"))
    chances = {each: improvement_interval(returns[128, each, gipo], returns[128, each, ppo]) for each in COMMANDS}
    assert [name for name, (_, low, _) in chances.items() if low > 0.5] == [FIRST]
    first, vtrace, stored, free = (short(with_interval(*chances[each])) for each in COMMANDS)
    assert (
        f"more than one of PPO-Clip with probability {first} as registered, {vtrace} by V-trace, {free} without the "
        f"anchor and {stored} with stored advantages."
    ) in PAGE
    assert f"by V-trace it is level, {vtrace}" in README
    assert f"{stored} is the probability that a run of it returns more than one of PPO-Clip" in README


def test_by_v_trace_gipo_alone_loses(rows: list[Row], returns: Cells) -> None:
    kl, vtrace = divergences(rows), "V-trace"
    changes = {(age, name): change(returns, age, vtrace, name) for age in (16, 128) for name in FOUR_NAMES}
    assert [cell for cell, (_, low, high) in changes.items() if low > 0 or high < 0] == [(128, "GIPO")]
    said = {cell: short(with_interval(*found, "+.2f")) for cell, found in changes.items()}
    assert f"its return changed by {said[128, 'GIPO']} there" in CHOICE
    assert f"returns less by it, by {said[128, 'GIPO']} at 128" in LIMITS
    moved = [kl[128, f"{command}|GIPO"] for command in (FIRST, vtrace)]
    assert (
        f"{said[128, 'GIPO']}, where its policy goes as far as before (a KL of {moved[0]} and {moved[1]}); with 16 its "
        f"change is {said[16, 'GIPO']}. The change of the candidate is {said[16, 'the candidate']} (16) and "
        f"{said[128, 'the candidate']} (128)"
    ) in PAGE
    candidate, gipo, ppo = (OBJECTIVES[name] for name in ("the candidate", "GIPO", "PPO-Clip"))
    ahead = {
        (age, other): likelier(returns[age, vtrace, candidate], returns[age, vtrace, other])
        for age in (16, 128) for other in (gipo, ppo)
    }  # fmt: skip
    assert (
        f"more than GIPO with probability {ahead[16, gipo]} (16) and {ahead[128, gipo]} (128), and than PPO-Clip with "
        f"{ahead[128, ppo]} at 128; with 16 these two are level, {ahead[16, ppo]}."
    ) in PAGE


def test_stored_advantages_take_most(rows: list[Row], returns: Cells) -> None:
    there = {name: returns[128, FIRST, name] for name in FOUR}
    stored = {name: returns[128, "stored advantages", name] for name in FOUR}
    lost = [more(stored[name], there[name]) for name in FOUR]
    assert "PPO-Clip by {2}, SAPO by {3}, the candidate by {0} and GIPO by {1}.".format(*lost) in PAGE
    kl = divergences(rows)
    gipo, ppo = (OBJECTIVES[name] for name in ("GIPO", "PPO-Clip"))
    moved = [kl[128, f"{command}|{name}"] for name in (gipo, ppo) for command in (FIRST, "stored advantages")]
    assert "from a KL of {} to {}; PPO-Clip's stays at {} and {}".format(*moved) in PAGE


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
    candidate, gipo = (OBJECTIVES[name] for name in ("the candidate", "GIPO"))
    ahead = [likelier(returns[age, free, candidate], returns[age, free, gipo]) for age in (16, 128)]
    assert "more than GIPO with probability {} (16) and {} (128)".format(*ahead) in PAGE
    assert f"{more(returns[128, free, gipo], returns[128, FIRST, gipo])} with a buffer of 128" in CHOICE


def test_what_is_said_to_be_lost_is_by_its_interval(returns: Cells) -> None:
    lost = {
        (command, age): {name for name in FOUR_NAMES if change(returns, age, command, name)[2] < 0}
        for command, (_, ages) in OTHERS.items() for age in ages
    }  # fmt: skip
    assert lost == {
        ("V-trace", 16): set(), ("V-trace", 128): {"GIPO"}, ("stored advantages", 128): {*FOUR_NAMES},
        ("no anchor", 16): {"GIPO", "SAPO"}, ("no anchor", 128): {"GIPO", "SAPO"},
    }  # fmt: skip
