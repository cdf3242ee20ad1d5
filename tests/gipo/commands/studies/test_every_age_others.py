"""What the page says of the study's other commands: another estimator, advantages or anchor, made from their runs."""

import numpy as np
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
FIRST, VTRACE, STORED, FREE = "as registered", "V-trace", "stored advantages", "no anchor"
OTHERS = {
    VTRACE: ("claim_vtrace.csv", (16, 128)), STORED: ("claim_stored.csv", (128,)), FREE: ("claim_free.csv", (16, 128)),
}  # fmt: skip
CANDIDATE, GIPO, PPO, SAPO = FOUR = [OBJECTIVES[name] for name in ("the candidate", "GIPO", "PPO-Clip", "SAPO")]
SUCCESS = "success"
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
    like = [row for row in first if row["task"] in tasks and row["objective"] in FOUR]
    return [{**row, "objective": f"{FIRST}|{row['objective']}"} for row in like] + found


def of(rows: list[Row], score: str = staleness_figures.NORMALISED) -> Cells:
    found = staleness_figures.scores(rows)[score]
    return {(age, *name.split("|")): values for (age, name), values in found.items()}  # type: ignore[misc]


@pytest.fixture(scope="module")
def returns(rows: list[Row]) -> Cells:
    return of(rows)


def less(cells: Cells, task: int) -> Cells:
    """All tasks but one."""
    return {cell: np.delete(values, task, 0) for cell, values in cells.items()}


def middle(values: Array) -> str:
    return short(with_interval(*iqm_interval(values)))


def signed(interval: Interval) -> str:
    return short(with_interval(*interval, "+.2f"))


def change(cells: Cells, age: int, command: str, name: str) -> Interval:
    """How another command changes what an objective returns."""
    return iqm_difference_interval(*(cells[age, each, name] for each in (command, FIRST)))


def over(cells: Cells, age: int, command: str, ours: str, theirs: str) -> Interval:
    """The probability that a run of ours returns more than one of theirs."""
    return improvement_interval(cells[age, command, ours], cells[age, command, theirs])


def likelier(cells: Cells, age: int, command: str, ours: str, theirs: str) -> str:
    return short(with_interval(*over(cells, age, command, ours, theirs)))


def divergences(rows: list[Row]) -> dict[tuple[int, str], str]:
    return {(row["age"], row["objective"]): short(f"{row['kl']:.2f}") for row in staleness_figures.summarise(rows)}


@pytest.mark.parametrize("age", [16, 128])
def test_returns_of_every_command(returns: Cells, age: int) -> None:
    commands = [FIRST, *(command for command, (_, ages) in OTHERS.items() if age in ages)]
    table = [(NAMES[name], *(middle(returns[age, each, name]) for each in commands)) for name in FOUR]
    assert markdown((f"buffer of {age}", *commands), table) in PAGE


def test_gipos_lead_over_ppo_clip_is_shown_as_registered_alone(returns: Cells) -> None:
    chances = {each: over(returns, 128, each, GIPO, PPO) for each in (FIRST, *OTHERS)}
    assert [name for name, (_, low, _) in chances.items() if low > 0.5] == [FIRST]
    first, vtrace, stored, free = (short(with_interval(*each)) for each in chances.values())
    assert (
        f"A run of it returns more with probability {first} as registered, {vtrace} by V-trace, {free} without the "
        f"anchor and {stored} with stored advantages."
    ) in PAGE
    assert f"{stored} is the probability that a run of it returns more than one of PPO-Clip" in README
    assert f"by V-trace no lead is shown, {vtrace}" in README
    assert f"more than one of PPO-Clip with probability {stored}" in CHOICE
    behind = {each: over(returns, 16, each, GIPO, PPO) for each in (FIRST, VTRACE, FREE)}
    assert [name for name, (_, _, high) in behind.items() if high < 0.5] == [VTRACE, FREE]
    first, vtrace, free = (short(with_interval(*each)) for each in behind.values())
    assert f"by V-trace, {vtrace}, and without the anchor, {free}; as registered they are not parted, {first}." in PAGE
    lead = iqm_difference_interval(returns[128, FREE, GIPO], returns[128, FREE, SAPO])
    assert lead[1] > 0
    assert f"Over SAPO a lead is left without the anchor, {signed(lead)}." in PAGE


def test_by_v_trace_gipo_alone_is_shown_to_lose(rows: list[Row], returns: Cells) -> None:
    changes = {(age, name): change(returns, age, VTRACE, name) for age in (16, 128) for name in FOUR}
    assert [cell for cell, (_, low, high) in changes.items() if low > 0 or high < 0] == [(128, GIPO)]
    said = {cell: signed(found) for cell, found in changes.items()}
    assert f"its return changed by {said[128, GIPO]}" in CHOICE
    assert f"by it, by {said[128, GIPO]}; with 16, and for" in LIMITS
    kl, tasks = divergences(rows), distinct(rows, "task")
    before, after = (kl[128, f"{command}|GIPO"] for command in (FIRST, VTRACE))
    without = {
        task: signed(change(less(returns, tasks.index(f"{task}-v3")), 128, VTRACE, GIPO))
        for task in ("hand-insert", "pick-place")
    }
    assert (
        f"{said[128, GIPO]}, where its policy goes as far as before (a KL of {before} and {after}). Most of it is of "
        f"two tasks: without hand-insert it is {without['hand-insert']}, without pick-place {without['pick-place']}. "
        f"With 16 its change is {said[16, GIPO]}."
    ) in PAGE
    assert f"of the candidate it is {said[16, CANDIDATE]} (16) and {said[128, CANDIDATE]} (128)" in PAGE


def test_by_v_trace_gipo_is_no_longer_ahead_of_the_candidate(returns: Cells) -> None:
    lead = iqm_difference_interval(returns[128, FIRST, GIPO], returns[128, FIRST, CANDIDATE])
    ahead = {(age, other): over(returns, age, VTRACE, CANDIDATE, other) for age in (16, 128) for other in (GIPO, PPO)}
    assert lead[1] > 0
    assert {cell for cell, (_, low, _) in ahead.items() if low > 0.5} == {(16, GIPO), (128, PPO)}
    said = {cell: short(with_interval(*found)) for cell, found in ahead.items()}
    assert (
        f"As registered it led at 128 by {signed(lead)}; by V-trace the candidate returns more than GIPO with "
        f"probability {said[128, GIPO]} there, and {said[16, GIPO]} with 16. Over PPO-Clip the candidate has "
        f"{said[128, PPO]} at 128, where it had {likelier(returns, 128, FIRST, CANDIDATE, PPO)}, and {said[16, PPO]} "
        "with 16."
    ) in PAGE


def test_stored_advantages_leave_no_more_than_fresh_data_give(rows: list[Row], returns: Cells) -> None:
    lost = {name: change(returns, 128, STORED, name) for name in FOUR}
    fresh = {
        name: iqm_difference_interval(returns[128, STORED, name], returns[1, FIRST, name]) for name in FOUR
    }  # of the same tasks and seeds
    assert all(high < 0 for _, _, high in lost.values())
    assert [name for name, (_, low, high) in fresh.items() if low > 0 or high < 0] == [CANDIDATE]
    assert fresh[CANDIDATE][2] < 0
    assert (
        "PPO-Clip loses {2}, SAPO {3}, the candidate {0} and GIPO {1}. Beside fresh data (a buffer of 1, the first "
        "command, the same tasks) that is {4} for the candidate and {5}, {6} and {7} for GIPO, PPO-Clip and SAPO."
    ).format(*map(signed, (*lost.values(), *fresh.values()))) in PAGE
    kl = divergences(rows)
    moved = [kl[128, f"{command}|{name}"] for name in (GIPO, SAPO, CANDIDATE) for command in (FIRST, STORED)]
    assert "from a KL of {} to {}, SAPO's from {} to {}, the candidate's from {} to {}".format(*moved) in PAGE


def test_without_the_anchor_gipo_and_sapo_lose(rows: list[Row], returns: Cells) -> None:
    kl, table = divergences(rows), []
    for name in FOUR:
        changed = {age: signed(change(returns, age, FREE, name)) for age in (16, 128)}
        moved = {age: " → ".join(kl[age, f"{each}|{name}"] for each in (FIRST, FREE)) for age in (16, 128)}
        table.append((NAMES[name], changed[16], moved[16], changed[128], moved[128]))
    ages = [column for age in (16, 128) for column in (f"buffer of {age}: change of return", "KL")]
    assert markdown(("without the anchor", *ages), table) in PAGE
    for age in (16, 128):
        assert [change(returns, age, FREE, name)[2] < 0 for name in FOUR] == [False, True, False, True]
    wide = [float(kl[age, f"{FREE}|{name}"]) for age in (16, 128) for name in (GIPO, SAPO)]
    assert short(f"their KL grows to {min(wide):.2f} and more") in PAGE
    ahead = [likelier(returns, age, FREE, CANDIDATE, GIPO) for age in (16, 128)]
    assert "more than GIPO with probability {} with 16; with 128 they are not parted, {}".format(*ahead) in PAGE
    gipo, sapo = ([signed(change(returns, age, FREE, name)) for age in (16, 128)] for name in (GIPO, SAPO))
    assert f"GIPO by {gipo[0]} and {gipo[1]}, SAPO by {sapo[0]} and {sapo[1]}" in CHOICE


def test_where_a_difference_and_a_probability_do_not_agree(returns: Cells) -> None:
    def shown(*cells: tuple[int, str, str]) -> tuple[bool, bool]:
        """Whether the difference of two cells holds no 0, and their probability no one half."""
        ours, theirs = (returns[cell] for cell in cells)
        (_, low, high), (_, least, most) = iqm_difference_interval(ours, theirs), improvement_interval(ours, theirs)
        return low > 0 or high < 0, least > 0.5 or most < 0.5

    said = PAGE.partition("- A difference of interquartile means and the probability")[2].partition("\n")[0]
    assert shown((128, VTRACE, CANDIDATE), (128, VTRACE, PPO)) == (False, True)
    assert "and that by V-trace with 128 the candidate returns more than PPO-Clip." in said
    for pair in (
        ((128, FIRST, GIPO), (128, FIRST, CANDIDATE)),
        ((128, VTRACE, GIPO), (128, FIRST, GIPO)),
        ((16, FREE, GIPO), (16, FIRST, GIPO)),
        ((128, FREE, GIPO), (128, FREE, SAPO)),
    ):
        assert shown(*pair) == (True, False), pair
    assert (
        "on the five drawn tasks GIPO's lead over the candidate with 128, what V-trace costs it there, what leaving "
        "out the anchor costs it with 16, and its lead over SAPO without the anchor."
    ) in said


def test_in_success_none_is_parted(rows: list[Row]) -> None:
    success, three = of(rows, SUCCESS), (CANDIDATE, GIPO, PPO)
    others = [(age, each) for each, (_, ages) in OTHERS.items() for age in ages]
    for age, command in ((16, FIRST), (128, FIRST), *others):
        for place, ours in enumerate(three):
            for theirs in three[place + 1 :]:
                low, high = over(success, age, command, ours, theirs)[1:]
                assert low <= 0.5 <= high, (age, command, ours, theirs)
    ended = [row for row in rows if row["age"] > 1]
    of_one = sum(row["success"] for row in ended if row["task"] == "handle-press-v3")
    assert f"{of_one / sum(row['success'] for row in ended):.0%} of it is of handle-press".replace("%", " %") in PAGE


def test_what_stays_whichever_task_is_left_out(rows: list[Row], returns: Cells) -> None:
    shown = set()
    for task in range(len(distinct(rows, "task"))):
        left = less(returns, task)
        found = {f"{each} {age}" for each, (_, ages) in OTHERS.items() for age in ages
                 if all(change(left, age, each, name)[2] < 0 for name in FOUR)}  # fmt: skip
        if over(left, 128, FIRST, GIPO, PPO)[1] > 0.5:
            found.add("lead")
        shown = shown & found if task else found
    assert shown == {f"{STORED} 128", "lead"}  # "alone stay shown whichever task is left out"
