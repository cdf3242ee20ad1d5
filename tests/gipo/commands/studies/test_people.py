"""What the study of a person's help says of its rows, and that it runs end to end."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.commands.studies import people
from gipo.commands.studies.cli import main
from gipo.commands.studies.run_tables import read_runs
from gipo.commands.studies.statistics import paired_interval
from gipo.common.intervals import with_interval
from gipo.common.tables import write_table
from tests.pages import ROOT

SUCCESS = {"deployed": [0.5, 0.4, 0.6], "alone": [0.6, 0.5, 0.9], "helped 1": [0.9, 0.9, 1.0],
           "corrections": [0.8, 0.3, 0.9]}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    shares = {"helped 1": 0.2, "corrections": 0.2}
    logged = {"alone": 0.4, "helped 1": 0.9, "corrections": 0.9}
    return [
        {"seed": seed, "way": way, "success": value, "person_share": shares.get(way, 0.0),
         "logged_success": logged.get(way, 0.0)}
        for way, values in SUCCESS.items() for seed, value in enumerate(values)
    ]  # fmt: skip


def test_a_paired_interval_by_hand() -> None:
    # mean 2, deviation 1, t of two degrees of freedom at 97.5 % = 4.3027
    mean, low, high = paired_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert (low, high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)
    assert paired_interval(np.array([0.3]))[1:] == (-np.inf, np.inf)


def test_differences_are_paired_by_seed() -> None:
    table = {row["way"]: row for row in people.summarise(rows())}
    assert table["helped 1"]["success"] == pytest.approx(2.8 / 3)
    assert table["helped 1"]["difference"] == pytest.approx((0.3 + 0.4 + 0.1) / 3)
    low, high = table["helped 1"]["low"], table["helped 1"]["high"]
    assert (low, high) == pytest.approx(paired_interval(np.array([0.3, 0.4, 0.1]))[1:])
    assert (table["alone"]["low"], table["alone"]["high"]) == (0, 0)


def test_the_report_names_every_seed_and_what_the_logs_held() -> None:
    text = people.report(people.summarise(rows()), rows())
    assert "| way to learn | seed 0 | seed 1 | seed 2 | mean | against alone |" in text
    assert "| alone | 0.60 | 0.50 | 0.90 | 0.67 |  |" in text
    assert "| helped 1 | 0.90 | 0.90 | 1.00 | 0.93 | +0.27 [" in text
    assert "0.40 of the episodes succeeded without help and 0.90 with it; the person commanded 20 %" in text


def test_tables_are_made_again_of_kept_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(tmp_path / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(people.COLUMNS))
        writer.writeheader()
        writer.writerows(rows())
    main(["people", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs.csv")])
    assert "| helped 1 | 0.90 |" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"people.csv", "people.md"}


def test_ways_that_lack_a_seed_of_the_others_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = [{**row, "seed": 7} if (row["seed"], row["way"]) == (2, "alone") else row for row in rows()]
    without = [row for row in rows() if row["way"] != "corrections"]
    for found, said in ((other, "deployed, seed 7"), (without, "corrections, seed 0")):
        write_table(found, tmp_path / "runs.csv")
        with pytest.raises(SystemExit, match="2"):
            main(["people", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs.csv")])
        error = capsys.readouterr().err
        assert error.endswith(f"--runs: no run of way {said}; runs are compared in pairs of one seed\n")
        assert not (tmp_path / "out" / "people.csv").exists()


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_the_study_runs_end_to_end(tmp_path: Path) -> None:
    main([
        "people", "--out", str(tmp_path / "out"), "--loops", str(tmp_path / "loops"), "--seeds", "3", "--frames", "40",
        "--logged", "2", "--episodes", "2", "--processes", "1", "--coefs", "1", "--operator", "patience=20",
        "--train", "data.frames_per_iteration=20", "data.collector.num_envs=1", "data.evaluation.num_envs=1",
        "data.rounds=1", "data.batch=16", "data.capacity=40",
        "--post", "data.iterations=2", "data.rounds=1", "data.batch=16", "data.min_ess=0", "data.ingest.workers=1",
    ])  # fmt: skip
    with open(tmp_path / "out" / "runs.csv") as file:
        found = {row["way"]: row for row in csv.DictReader(file)}
    assert list(found) == ["deployed", "alone", "helped 1", "corrections"]
    assert float(found["helped 1"]["person_share"]) > 0
    assert float(found["alone"]["person_share"]) == 0


def test_the_page_says_what_the_kept_runs_do() -> None:
    found = read_runs(ROOT / "docs" / "data" / "people.csv", people.COLUMNS)
    text = (ROOT / "docs" / "evidence.md").read_text()
    on_page = text.partition("| way to learn | seed 22 ")[2].partition("\n\n")[0].splitlines()[2:]
    made = people.report(people.summarise(found), found).splitlines()[2:7]
    assert [line.split("|")[2:] for line in on_page] == [line.split("|")[2:] for line in made]
    of = {(row["seed"], row["way"]): row["success"] for row in found}
    worse = np.array([of[seed, "corrections"] - of[seed, "deployed"] for seed in (22, 64, 99, 234, 360)])
    said = with_interval(*paired_interval(worse), "+.2f").replace("-", "−").replace("0.", ".")
    assert f"({said} against the deployed policy, better with one seed of five)" in text
    assert (worse > 0).sum() == 1
