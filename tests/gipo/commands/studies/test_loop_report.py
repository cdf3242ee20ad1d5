"""The loop that is published: the page's table is the report of its figures."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest

from gipo.commands.studies.loop_report import report

DOCS = Path(__file__).parents[4] / "docs"
README = (DOCS.parent / "README.md").read_text()


@pytest.mark.parametrize("name", ["loop", "loop_coffee"])
def test_the_tables_of_the_page_are_the_reports_of_the_figures_beside_it(name: str) -> None:
    found = json.loads((DOCS / "data" / f"{name}.json").read_text())
    said = report(found["seeds"], argparse.Namespace(gap=["action_offset=.25"], episodes=50))
    page = (DOCS / "evidence.md").read_text()
    rows = [line for line in said.splitlines() if line.startswith("|") and line[2].isdigit()]
    assert len(rows) == 5
    mean = said.rpartition("mean ")[2].partition(", Student")[0]
    median = said.partition("seeds: ")[2].partition(";")[0]
    deployed, trained = (np.median([each["rounds"][which]["success"] for each in found["seeds"]]) for which in (0, -1))
    rows.append(f"| **median** | **{deployed:.2f}** | **{trained:.2f}** | **{median}** |")
    assert "\n".join([*rows, "", f"Mean gain {mean}, Student's interval over the seeds"]) in page
    readme = re.sub(r"\b0\.", ".", f"from {deployed:.2f} to {trained:.2f}")
    assert readme in README
    assert re.sub(r"\b0\.", ".", mean) in README
