"""The runs that are published: the page's tables and sentences are what the study makes of them."""

from pathlib import Path

from gipo.commands.studies.demonstrations.report import gains, report
from gipo.commands.studies.demonstrations.study import COLUMNS
from gipo.commands.studies.run_tables import read_runs

DOCS = Path(__file__).parents[5] / "docs"
ROWS = read_runs(DOCS / "data" / "twenty.csv", COLUMNS)
TUNED_ON = ("assembly-v3", "coffee-pull-v3")


def test_the_table_of_the_page_is_made_of_the_runs() -> None:
    assert report(gains(ROWS), ROWS) in (DOCS / "demonstrations.md").read_text()


def test_the_eighteen_others_are_told_apart() -> None:
    others = [row for row in ROWS if row["task"] not in TUNED_ON]
    summary = [line for line in report(gains(others), others).splitlines() if line.startswith("- Buffer")]
    assert "\n".join(summary) in (DOCS / "demonstrations.md").read_text()
