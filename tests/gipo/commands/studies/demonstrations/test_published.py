"""The runs that are published: the page's tables and sentences are what the study makes of them."""

from pathlib import Path

import numpy as np
import pytest

from gipo.commands.studies.demonstrations.report import by_task, gains, report
from gipo.commands.studies.demonstrations.runs import Row
from gipo.commands.studies.demonstrations.study import COLUMNS
from gipo.commands.studies.run_tables import distinct, read_runs
from gipo.commands.studies.statistics import Array, paired_interval
from gipo.common.intervals import with_interval

DOCS = Path(__file__).parents[5] / "docs"
ROWS = read_runs(DOCS / "data" / "twenty.csv", COLUMNS)
TUNED_ON = ("assembly-v3", "coffee-pull-v3")
OTHERS = [row for row in ROWS if row["task"] not in TUNED_ON]
TASKS = distinct(ROWS, "task")


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "demonstrations.md").read_text()


def short(gain: Array) -> str:
    """The mean over tasks of gains [tasks, seeds] as sentences write it: `+.05 [+.02, +.09]`."""
    return with_interval(*paired_interval(gain.mean(1)), "+.2f").replace("0.", ".").replace("-", "−")


def after(objective: str, score: str) -> Array:
    """[tasks, seeds] of a score of what was post-trained."""
    return np.array([
        [row[f"{score}_after"] for row in ROWS if (row["task"], row["objective"]) == (task, objective)]
        for task in TASKS
    ])  # fmt: skip


def test_the_table_of_the_page_is_made_of_the_runs(page: str) -> None:
    assert report(gains(ROWS), ROWS) in page


def test_the_eighteen_others_are_told_apart(page: str) -> None:
    summary = [line for line in report(gains(OTHERS), OTHERS).splitlines() if line.startswith("- ")]
    assert len(summary) == 2 * 3 + 2
    assert "\n".join(summary) in page


def test_the_pages_say_what_the_eighteen_came_to(page: str) -> None:
    ours, ppo, sapo = (by_task(OTHERS, 16, name) for name in ("GIPO", "PPOClip", "SAPO"))
    readme, evidence = (DOCS.parent / "README.md").read_text(), (DOCS / "evidence.md").read_text()
    for of, more, than_sapo in (
        (readme, f"by {short(ours)} over the 18", f"than SAPO {short(ours - sapo)}"),
        (evidence, f"{short(ours)} over the eighteen", f"than SAPO {short(ours - sapo)}"),
        (page, f"the eighteen is {short(ours)}", f"{short(sapo)}; GIPO's gain minus SAPO's is {short(ours - sapo)}"),
    ):
        assert more in of
        assert than_sapo in of
        assert f"{short(ours - ppo)} " in of


def test_what_is_said_of_single_tasks(page: str) -> None:
    room = [task for task in TASKS if min(row["success_before"] for row in _of(task, "GIPO")) < 1]
    mean = {name: dict(zip(TASKS, by_task(ROWS, 16, name).mean(1), strict=True)) for name in ("GIPO", "PPOClip")}
    assert (len(room), sum(mean["GIPO"][task] > 0 for task in room)) == (16, 16)
    assert len({row["task"] for row in OTHERS} & {*room}) == 14
    assert "raised in the mean**: 14 of the eighteen," in page
    assert sum(mean["PPOClip"][task] > 0 for task in room) == 15
    raised = [
        sum(row["low"] > 0 for row in gains(ROWS) if row["objective"] == name) for name in distinct(ROWS, "objective")
    ]
    assert "raised on {} of 20, not on the 15 hoped for; by PPO-Clip on {}, by SAPO on {}.".format(*raised) in page
    spread = np.median([by_task(_of(task, "GIPO"), 16, "GIPO").std(ddof=1) for task in room])
    assert f"differ between seeds by {spread:.2f} (median".replace("0.", ".") in page
    assert f"makes ± {4.302653 * spread / 3**0.5:.2f},".replace("0.", ".") in page


def test_what_is_said_of_returns_and_of_the_last_step(page: str) -> None:
    ours, theirs = after("GIPO", "return"), after("PPOClip", "return")
    assert (ours.mean(1) > theirs.mean(1)).all()
    assert f"all twenty, in {(ours > theirs).sum()} of {ours.size} pairs" in page
    last = {name: dict(zip(TASKS, after(name, "last").mean(1), strict=True)) for name in ("GIPO", "PPOClip")}
    before = {task: np.mean([row["last_before"] for row in _of(task, "GIPO")]) for task in TASKS}
    bin_picking, wall = "bin-picking-v3", "button-press-topdown-wall-v3"
    for said in (
        f"on `{bin_picking}` from {before[bin_picking]:.2f} to {last['GIPO'][bin_picking]:.2f}.",
        f"On `{wall}` GIPO's fell from {before[wall]:.2f} to {last['GIPO'][wall]:.2f}, where",
        f"where PPO-Clip's rose to {last['PPOClip'][wall]:.2f}",
    ):
        assert said.replace("0.", ".") in page


def _of(task: str, objective: str) -> list[Row]:
    return [row for row in ROWS if (row["task"], row["objective"]) == (task, objective)]
