"""The runs that are published: the page's tables and sentences are what the study makes of them."""

from pathlib import Path

from gipo.commands.studies.demonstrations.report import by_task, gains, report
from gipo.commands.studies.demonstrations.study import COLUMNS
from gipo.commands.studies.run_tables import read_runs
from gipo.commands.studies.statistics import paired_interval
from gipo.common.intervals import with_interval

DOCS = Path(__file__).parents[5] / "docs"
ROWS = read_runs(DOCS / "data" / "twenty.csv", COLUMNS)
TUNED_ON = ("assembly-v3", "coffee-pull-v3")


def test_the_table_of_the_page_is_made_of_the_runs() -> None:
    assert report(gains(ROWS), ROWS) in (DOCS / "demonstrations.md").read_text()


def test_the_eighteen_others_are_told_apart() -> None:
    others = [row for row in ROWS if row["task"] not in TUNED_ON]
    summary = [line for line in report(gains(others), others).splitlines() if line.startswith("- Buffer")]
    assert "\n".join(summary) in (DOCS / "demonstrations.md").read_text()


def test_the_front_page_says_what_the_eighteen_came_to() -> None:
    others = [row for row in ROWS if row["task"] not in TUNED_ON]
    ours, theirs = by_task(others, 16, "GIPO"), by_task(others, 16, "PPOClip")
    for gain, said in (
        (ours, "by {} over the 18"),
        (ours - theirs, "GIPO gained {} more ([table](docs/demonstrations"),
    ):
        interval = with_interval(*paired_interval(gain.mean(1)), "+.2f").replace("+0.", "+.")
        assert said.format(interval) in (DOCS.parent / "README.md").read_text()
        assert interval in (DOCS / "evidence.md").read_text()
    room = [task for task in {row["task"] for row in ROWS} if min(before(task)) < 1]
    raised = [task for task in room if by_task([row for row in ROWS if row["task"] == task], 16, "GIPO").mean() > 0]
    assert len(raised) == len(room) == 16


def before(task: str) -> list[float]:
    return [row["success_before"] for row in ROWS if row["task"] == task]
