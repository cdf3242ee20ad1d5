"""The tables of the staleness page are made of the runs beside it."""

import re
from typing import Any

import numpy as np
import pytest

from gipo.commands.studies import staleness, staleness_figures
from gipo.commands.studies.run_tables import read_runs
from gipo.common.intervals import with_interval
from tests.pages import ROOT

PAGE, DATA = ROOT / "docs" / "staleness.md", ROOT / "docs" / "data"
Cells = dict[tuple[int, str], dict[str, Any]]


def runs(name: str) -> list[dict[str, Any]]:
    return read_runs(DATA / f"{name}.csv", staleness.COLUMNS)


def cells(rows: list[dict[str, Any]]) -> Cells:
    return {(row["age"], row["objective"]): row for row in staleness_figures.summarise(rows)}


def table(corner: str) -> list[list[str]]:
    """The cells of the page's table that begins with this corner, the header without its corner first."""
    lines = PAGE.read_text().partition(f"| {corner} |")[2].partition("\n\n")[0].splitlines()
    header, _, *rows = (line.strip("| ").split(" | ") for line in lines)
    return [header, *rows]


@pytest.fixture(scope="module")
def recomputed() -> Cells:
    return cells(runs("staleness"))


def test_scores_and_what_becomes_of_the_samples(recomputed: Cells) -> None:
    def score(name: str) -> Any:
        return lambda row: with_interval(row[name], row[f"{name} low"], row[f"{name} high"])

    shown = {
        "normalised return": score("normalised return"),
        "any-step success": score("success"),
        "dead to PPO's clip, effective sample size": lambda row: f"{row['ppo_dead']:.2f}, {row['ess']:.2f}",
    }
    for corner, written in shown.items():
        names, *rows = table(corner)
        assert len(rows) == 3
        for first, *found in rows:
            age = int(re.match(r"\d+", first)[0])  # type: ignore[index]
            assert found == [written(recomputed[age, name]) for name in names], (corner, first)


def test_stored_advantages(recomputed: Cells) -> None:
    stored = [{**row, "objective": f"{row['objective']} stored"} for row in runs("staleness_stored")]
    both = cells([row for row in runs("staleness") if row["age"] == 128] + stored)
    names, *rows = table("buffer of 128")
    for first, *found in rows:
        score, _, kind = first.partition(", ")
        key = "success" if "success" in score else score
        made = [both[128, name + " stored" * (kind == "stored")] for name in names]
        assert found == [with_interval(row[key], row[f"{key} low"], row[f"{key} high"]) for row in made], first


def test_how_wide_a_trust_region_is_in_practice() -> None:
    rows = runs("staleness")
    wide = {
        (age, name): np.mean([r["log_ratio_p95"] for r in rows if (r["age"], r["objective"]) == (age, name)])
        for age in (1, 128)
        for name in ("GIPO", "PPOClip")
    }
    said = [f"{wide[cell]:.{digits}f}".lstrip("0") for cell, digits in zip(wide, (2, 2, 1, 1), strict=True)]
    objectives = (ROOT / "docs" / "objectives.md").read_text()
    assert f"within {said[0]}, not {said[1]}; with a buffer of 128 within {said[2]}, not {said[3]})" in objectives
    assert f"with a buffer of 128, 95 % of |log ρ| within {said[3]} against {said[2]})" in PAGE.read_text()


def chances(rows: list[dict[str, Any]]) -> dict[tuple[int, str], str]:
    """How probably a run of GIPO returns more, as the page writes it."""
    return {
        (row["age"], row["other"]): with_interval(row["probability"], row["low"], row["high"])
        for row in staleness_figures.improvements(rows)
    }


def test_how_probably_a_run_of_gipo_returns_more() -> None:
    text, of = PAGE.read_text(), chances(runs("staleness"))
    ppo, none, sapo = ([of[age, name] for age in (16, 128)] for name in ("PPOClip", "NoClip", "SAPO"))
    assert f"{ppo[0]} and {none[0]} with a buffer of 16 iterations, {ppo[1]} and {none[1]} with one of 128." in text
    assert f"**It does not beat SAPO**: {sapo[0]} and {sapo[1]} are no difference" in text
    assert f"**On fresh data PPO-Clip returned more**, {of[1, 'PPOClip']} is" in text
    # with stored advantages, normalised over both studies
    stored = [{**row, "objective": f"{row['objective']} stored"} for row in runs("staleness_stored")]
    both = stored + [row for row in runs("staleness") if row["age"] == 128]
    of = {name: chance for (_, name), chance in chances(both).items()}
    assert f"with probability {of['PPOClip stored']}, than No-Clip {of['NoClip stored']}." in text
    (row,) = [row for row in staleness_figures.improvements(both) if row["other"] == "SAPO stored"]
    difference = with_interval(row["difference"], row["difference low"], row["difference high"], "+.2f")
    assert f"Than SAPO it is {of['SAPO stored']}, which ends at one half" in text
    assert f"holds 0, {difference.replace('-', '−')};" in text
