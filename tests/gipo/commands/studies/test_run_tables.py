"""Tables of runs that are read again: each run counts once, and cells that are compared hold as many."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from gipo.commands.studies import cli
from gipo.commands.studies.run_tables import rate, read_curves, read_runs, refuse_uneven, refuse_unpaired, selected
from gipo.common.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"age": age, "objective": name, "seed": seed} for age in (1, 16) for name in "AB" for seed in (3, 4)
]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: .*No such file"),
        (b"", "has no rows"),
        (b"frames,kl\n", "has no rows"),
        (b"frames,kl\n1,x\n", "cannot be read: .*'x'"),
        (b"frames,val/return\n1,nan\n", "holds an evaluation that is no finite number"),
        (b"frames\n1,2\n", "cannot be read: "),
        (b"frames\n\xff\n", "cannot be read: "),
        (b"frames,val/success\r\n1,0.2\r\n2,0.85"[:-1], "ends within a row"),
    ],
)
def test_curves_that_cannot_be_read_name_the_folder_to_delete(text: bytes | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "curves.csv").write_bytes(text)
    with pytest.raises(UserError, match=rf"curves\.csv {said}.*; delete {tmp_path}$"):
        read_curves(tmp_path)


def test_curves_have_what_was_logged_of_each_iteration(tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text("frames,kl,val/success\n10,.5,\n20,,1\n")
    assert read_curves(tmp_path) == [{"frames": 10, "kl": 0.5}, {"frames": 20, "val/success": 1}]


def test_a_run_counts_once() -> None:
    others = [{**row, "seed": row["seed"] + row["age"]} for row in ROWS]  # other seeds in each cell are as good
    for rows in (ROWS, others):
        refuse_uneven(rows, "age", "objective")
        with pytest.raises(UserError, match="is there 2 times"):
            refuse_uneven([*rows, rows[-1]], "age", "objective")
    with pytest.raises(UserError, match=r"^--runs: age 1, objective A, seed 3 is there 2 times; each run counts once$"):
        refuse_uneven([*ROWS, ROWS[0]], "age", "objective")


def test_cells_hold_as_many_runs_as_the_others() -> None:
    with pytest.raises(UserError, match=r"^--runs: 1 runs of age 16, objective B, where others have 2; make them"):
        refuse_uneven(ROWS[:-1], "age", "objective")
    with pytest.raises(UserError, match=r"^--runs: 0 runs of age 16, objective B, where others have 2"):
        refuse_uneven(ROWS[:-2], "age", "objective")


def test_pairs_need_both() -> None:
    refuse_unpaired(ROWS, age=(1, 16), objective="AB")
    other = [{**row, "seed": 5} if row == ROWS[-1] else row for row in ROWS]  # as many, and not the same
    with pytest.raises(UserError, match=r"^--runs: no run of age 1, objective A, seed 5; .* pairs of one"):
        refuse_unpaired(other, age=(1, 16), objective="AB")
    with pytest.raises(UserError, match=r"no run of age 1, objective C, seed 3"):
        refuse_unpaired(ROWS, age=(1, 16), objective="ABC")


def test_options_choose_among_runs_in_their_own_order() -> None:
    def chosen(**options: Any) -> list[tuple[Any, ...]]:
        found = selected(ROWS, Namespace(**options, given={*options, "runs", "out"}))
        return [tuple(row.values()) for row in found]

    assert chosen() == [tuple(row.values()) for row in ROWS]
    assert chosen(objectives=["B", "A"], ages=[16], seeds=[4]) == [(16, "B", 4), (16, "A", 4)]
    with pytest.raises(UserError, match=r"^--ages 2: --runs has none; it has 1, 16$"):
        chosen(ages=[1, 2])
    for name in ("frames", "tasks"):  # what is not run, and what these runs have no column of
        with pytest.raises(UserError, match=rf"^--{name} beside --runs: "):
            chosen(**{name: [1]})


def test_a_table_that_a_spreadsheet_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_bytes(b"\xef\xbb\xbfseed,gain\r\n1,.5\r\n")
    assert read_runs(tmp_path / "runs.csv", {"seed": int, "gain": float}) == [{"seed": 1, "gain": 0.5}]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_figure_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    """As a pair lost, it would be a verdict."""
    (tmp_path / "runs.csv").write_text(f"seed,gain\n1,.5\n2,{value}\n")
    with pytest.raises(UserError, match=rf"is not a runs.csv of this study: .*{value} is no finite number"):
        read_runs(tmp_path / "runs.csv", {"seed": int, "gain": float})


@pytest.mark.parametrize("value", ["1.05", "-.1", "nan", "95"])
def test_a_rate_is_one(value: str, tmp_path: Path) -> None:
    """Of percents no interval is right, and none would say so."""
    (tmp_path / "runs.csv").write_text(f"seed,success\n1,1\n2,{value}\n")
    with pytest.raises(UserError, match=rf"is not a runs.csv of this study: .*{value} is no rate from 0 to 1"):
        read_runs(tmp_path / "runs.csv", {"seed": int, "success": rate})


@pytest.mark.parametrize(
    ("study", "data", "said"),
    [
        ("staleness", "staleness", "task reach-v3, age 1, objective GIPO, seed 22 is there 2 times"),
        ("posttrain", "posttrain", "back 1, objective GIPO, seed 22 is there 2 times"),
        ("people", "people", "way deployed, seed 22 is there 2 times"),
    ],
)
def test_a_study_of_runs_that_are_there_twice_is_refused(
    study: str, data: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, *rows = (Path(__file__).parents[4] / "docs" / "data" / f"{data}.csv").read_text().splitlines()
    (tmp_path / "runs.csv").write_text("\n".join((head, *rows, rows[0], "")))
    with pytest.raises(SystemExit, match="2"):
        cli.main([study, "--runs", str(tmp_path / "runs.csv"), "--out", str(tmp_path / "out")])
    assert said in capsys.readouterr().err
