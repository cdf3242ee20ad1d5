"""Curves of runs become one table, from which the figure is drawn."""

import csv
from pathlib import Path

import pytest

from benchmarks import curves

EVALUATION = {"val/success": 0.5, "val/success_low": 0.3, "val/success_high": 0.7, "val/return": 100.0}


def logged(run: Path, version: int, rows: list[dict[str, float]]) -> None:
    file = run / "csv" / f"version_{version}" / "metrics.csv"
    file.parent.mkdir(parents=True)
    with open(file, "w", newline="") as lines:
        writer = csv.DictWriter(lines, sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)


def test_training_metrics_are_means_since_the_evaluation_before(tmp_path) -> None:
    logged(tmp_path, 0, [
        {"step": 10, "ess/all": 0.2}, {"step": 20, "ess/all": 0.4}, {"step": 20, **EVALUATION},
        {"step": 30, "ess/all": 0.9}, {"step": 30, **EVALUATION, "val/success": 1.0}, {"step": 40, "ess/all": 0.1},
    ])  # fmt: skip
    first, second = curves.rows("GIPO", tmp_path)
    assert (first["run"], first["step"], first["val/success"]) == ("GIPO", 20, 0.5)
    assert first["ess/all"] == pytest.approx(0.3)
    assert (second["step"], second["val/success"], second["ess/all"]) == (30, 1.0, 0.9)


def test_what_a_resumed_run_repeated_counts_once(tmp_path) -> None:
    logged(tmp_path, 0, [{"step": 10, "kl": 5.0}, {"step": 10, **EVALUATION}, {"step": 20, "kl": 7.0}])
    logged(tmp_path, 1, [{"step": 20, "kl": 1.0}, {"step": 20, **EVALUATION}])
    assert [(row["step"], row["kl"]) for row in curves.rows("GIPO", tmp_path)] == [(10, 5.0), (20, 1.0)]


def test_the_figure_is_drawn_from_the_table_alone(tmp_path) -> None:
    for name in ("a", "b"):
        logged(tmp_path / name, 0, [{"step": 10, "ess/all": 0.2, "weight/ppo_dead": 0.1}, {"step": 10, **EVALUATION}])
    files = [f"--csv={tmp_path / 'curves.csv'}", f"--figure={tmp_path / 'curves.png'}"]
    curves.main([f"GIPO σ=1={tmp_path / 'a'}", f"PPO-Clip={tmp_path / 'b'}", *files])
    drawn = (tmp_path / "curves.png").read_bytes()
    assert [row["run"] for row in curves.read(tmp_path / "curves.csv")] == ["GIPO σ=1", "PPO-Clip"]
    (tmp_path / "curves.png").unlink()
    curves.main(files)
    assert (tmp_path / "curves.png").read_bytes() == drawn


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        curves.main([f"GIPO={tmp_path}", f"--csv={tmp_path / 'c.csv'}", f"--figure={tmp_path / 'c.png'}"])
    assert end.value.code == 2
    assert "is no run of `gipo fit`" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["task,seed,bins\nreach-v3,0,33\n", "frames,val/success\n10,0.5\n"])
def test_a_table_that_is_none_is_named(text, tmp_path, capsys) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(SystemExit) as end:
        curves.main([f"--csv={tmp_path / 'c.csv'}", f"--figure={tmp_path / 'c.png'}"])
    assert end.value.code == 2
    assert "c.csv is no table of curves" in capsys.readouterr().err
