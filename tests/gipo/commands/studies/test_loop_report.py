"""The loop that is published: the page's table is the report of its figures."""

import argparse
import json
from pathlib import Path

import numpy as np

from gipo.commands.studies.loop_report import report

DOCS = Path(__file__).parents[4] / "docs"


def test_the_table_of_the_page_is_the_report_of_the_figures_beside_it() -> None:
    found = json.loads((DOCS / "data" / "loop.json").read_text())
    said = report(found["seeds"], argparse.Namespace(gap=["action_offset=.25"], episodes=50))
    page = (DOCS / "evidence.md").read_text()
    rows = [line for line in said.splitlines() if line.startswith("|") and line[2].isdigit()]
    assert len(rows) == 5
    assert "\n".join(rows) in page
    mean = said.rpartition("mean ")[2].partition(", Student")[0]
    assert f"Mean gain {mean}, Student's interval over the seeds" in page
    median = said.partition("seeds: ")[2].partition(";")[0]
    deployed, trained = (np.median([each["rounds"][which]["success"] for each in found["seeds"]]) for which in (0, -1))
    assert f"| **median** | **{deployed:.2f}** | **{trained:.2f}** | **{median}** |" in page
