"""The runs from the short buffer that are published: tables and sentences are what the study makes of them."""

import numpy as np
import pytest

from gipo.commands.studies.demonstrations.report import by_task, gains, report
from gipo.commands.studies.demonstrations.runs import SCORES, Row
from gipo.commands.studies.demonstrations.study import COLUMNS
from gipo.commands.studies.run_tables import read_runs
from gipo.commands.studies.statistics import Array
from tests.gipo.commands.studies.demonstrations.test_published import DOCS, OTHERS, TUNED_ON, short
from tests.gipo.commands.studies.demonstrations.test_published import ROWS as LONG_ROWS

ROWS = read_runs(DOCS / "data" / "twenty_short.csv", COLUMNS)
INSIDE = [row for row in ROWS if row["task"] not in TUNED_ON]
NAMES = ("GIPO", "PPOClip", "SAPO")
GAINS = {name: by_task(INSIDE, 2, name) for name in NAMES}  # [18, 3], as those of the long buffer
LONG = {name: by_task(OTHERS, 16, name) for name in NAMES}


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "demonstrations.md").read_text()


def test_they_are_runs_of_the_same_tasks_and_seeds() -> None:
    def cells(rows: list[Row]) -> list[tuple[str, int, str]]:
        return sorted((row["task"], row["seed"], row["objective"]) for row in rows)

    assert cells(ROWS) == cells(LONG_ROWS)
    assert {row["buffer"] for row in ROWS} == {2}


def test_the_tables_of_the_page_are_made_of_the_runs(page: str) -> None:
    assert report(gains(ROWS), ROWS) in page
    summary = [line for line in report(gains(INSIDE), INSIDE).splitlines() if line.startswith("- ")]
    assert len(summary) == 2 * 3 + 2
    assert "\n".join(summary) in page


def test_what_the_eighteen_gained(page: str) -> None:
    ours, ppo, sapo = (short(GAINS[name]) for name in NAMES)
    assert f"from 2 versions is {ours}, PPO-Clip's {ppo}, SAPO's {sapo}." in page
    raised = [sum(row["low"] > 0 for row in gains(ROWS) if row["objective"] == name) for name in NAMES]
    assert "raised on {} of 20 by GIPO, on {} by PPO-Clip, on {} by SAPO".format(*raised) in page


def test_where_a_clone_came_out_lower(page: str) -> None:
    ours, ppo, sapo = (
        [row["task"] for row in gains(ROWS) if row["objective"] == name and row["after"] < row["before"] - 1e-6]
        for name in NAMES
    )
    named = ", ".join(f"`{task}`" for task in ours)
    assert f"In the mean GIPO lowered {len(ours)} tasks ({named}), SAPO {len(sapo)}, PPO-Clip {len(ppo)}." in page


def test_what_older_versions_add(page: str) -> None:
    ours, ppo, sapo = (short(LONG[name] - GAINS[name]) for name in NAMES)
    assert f"to GIPO's gain {ours}, to PPO-Clip's {ppo}, to SAPO's {sapo}" in page


def test_how_the_objectives_compare(page: str) -> None:
    def more(than: str, gained: dict[str, Array]) -> Array:
        return gained["GIPO"] - gained[than]

    near = short(more("PPOClip", GAINS))
    assert f"GIPO's gain minus PPO-Clip's is {near}, minus SAPO's {short(more('SAPO', GAINS))}." in page
    grown = short(more("PPOClip", LONG) - more("PPOClip", GAINS))
    assert f"the difference is {short(more('PPOClip', LONG))} from 16, which is {grown} more than from 2." in page
    for other in ("README.md", "docs/evidence.md", "docs/limits.md"):
        said = (DOCS.parent / other).read_text()
        assert f"from 2 versions it is {near}" in said
        assert f"{grown} more from 16 than from 2" in said


def test_how_many_clones_are_those_of_the_long_buffer(page: str) -> None:
    def clones(rows: list[Row]) -> Array:
        found = {(row["task"], row["seed"]): [row[f"{name}_before"] for name in SCORES] for row in rows}
        return np.array([found[clone] for clone in sorted(found)])

    now, then = clones(ROWS), clones(LONG_ROWS)
    same = np.isclose(now, then, rtol=1e-6, atol=0).all(1).sum()
    assert f"{same} of the {len(now)} clones are those of the long buffer, to the digit" in page
    means = f"{now[:, 0].mean():.2f} in the mean, where it was {then[:, 0].mean():.2f}".replace("0.", ".")
    assert means in page
