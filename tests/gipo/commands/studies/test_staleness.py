"""The staleness study: its plan, its tables by hand, what it refuses, and that it goes on where it was killed."""

import argparse
import contextlib
import csv
import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gipo.commands.studies import cli, staleness, staleness_figures
from gipo.commands.studies.staleness import Run, read_run
from gipo.common.errors import UserError
from gipo.common.tables import write_table
from tests.in_process import InThisProcess
from tests.runs import CONTEXT, living

TABLES = ("runs.csv", "staleness.csv", "improvement.csv", "profiles.csv", "staleness.md")
STUDY = shlex.split(
    "staleness --tasks Tiny-v0 --seeds 1 2 --objectives GIPO GIPO:sigma=0.5 --ages 1 3 --frames 96 "
    "--frames-per-iteration 16 --episodes 2 --processes 1 --train checkpoint.every=2 data.collector.num_envs=2 "
    "data.rounds=1 data.batch=16 data.evaluation.num_envs=2 model.policy=TokenPolicy model.policy.bins=8 "
    "model.policy.network=gipo.networks.SeparateNetworks model.policy.network.hidden=[16]"
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staleness, "Forks", InThisProcess)
    monkeypatch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)


def table(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def study(out: str, log: str) -> None:
    """The study in a process of its own."""
    from tests.tiny_env import register

    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    register()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staleness, "Forks", InThisProcess)
        patch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)
        cli.main([*STUDY, "--out", out])


def finished(out: Path) -> list[Path]:
    return list(out.rglob("fit.done.json"))


def unfinished(out: Path) -> list[Path]:
    """Folders of runs that were begun and did not end."""
    return [path.parent for path in out.rglob("fit.started.json") if not (path.parent / "fit.done.json").exists()]


def has_saved(folder: Path) -> bool:
    return (folder / "checkpoints" / "last.ckpt").exists()


def kill(out: Path, log: Path, condition: Callable[[], object]) -> None:
    """Let the study run in a process of its own, and kill it as soon as `condition()`."""
    process = CONTEXT.Process(target=study, args=(str(out), str(log)))
    process.start()
    end = time.monotonic() + 120
    while not condition():
        assert process.is_alive(), log.read_text()
        assert time.monotonic() < end
        time.sleep(0.002)
    process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert unfinished(out)


@pytest.mark.usefixtures("quick")
def test_a_killed_study_ends_with_the_tables_of_the_whole_one(tmp_path: Path) -> None:
    cli.main([*STUDY, "--out", str(tmp_path / "whole")])
    again = tmp_path / "again"
    # In the middle of the first run before it has saved anything, and of a later one when it has.
    kill(again, tmp_path / "log.txt", lambda: unfinished(again))
    kill(again, tmp_path / "log.txt", lambda: finished(again) and any(map(has_saved, unfinished(again))))
    assert not (again / "runs.csv").exists()
    before = {path: path.stat().st_mtime_ns for path in finished(again)}
    assert 0 < len(before) < 8
    cli.main([*STUDY, "--out", str(again)])
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    for name in TABLES:
        assert (again / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name

    rows = table(again / "runs.csv")
    assert len(rows) == 8
    # two seeds, two objectives: the buffer decides the age, the objective what becomes of the samples
    for row in rows:
        age = float(row["age_mean"])
        assert age == 0 if row["age"] == "1" else 0.5 < age < 1.5  # 0, 1 and 2 versions, drawn alike
    assert {row["age_p95"] for row in rows} == {"0.0", "2.0"}
    config = yaml.safe_load((again / "Tiny-v0/age-3/GIPO:sigma=0.5/seed-2/config.yaml").read_text())
    assert config["data"]["capacity"] == 48
    assert config["data"]["advantages"] == "recompute"
    assert config["model"]["objective"]["init_args"]["sigma"] == 0.5
    assert config["seed_everything"] == 2
    assert not (again / "Tiny-v0/age-3/GIPO:sigma=0.5/seed-2/csv").exists()


@pytest.mark.usefixtures("quick")
def test_other_options_are_another_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = [*STUDY, "--seeds", "1", "--objectives", "GIPO", "--ages", "1", "--out", str(tmp_path)]
    cli.main(one)
    (tmp_path / "Tiny-v0/age-1/GIPO/seed-1/fit.done.json").unlink()  # an interrupted one is held to its options, too
    with pytest.raises(SystemExit, match="2"):
        cli.main([*one, "--frames", "64"])
    assert "was made with other options" in capsys.readouterr().err


def children(process: int) -> list[int]:
    return living(lambda fields: int(fields[1]) == process)


@pytest.mark.campaign
def test_what_a_killed_study_left_running_is_waited_for(tmp_path: Path) -> None:
    few = ["--tasks", "Pendulum-v1", "--seeds", "1", "--objectives", "GIPO", "PPOClip", "--ages", "1"]
    whole, again, log = tmp_path / "whole", tmp_path / "again", tmp_path / "log.txt"
    groups = []

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gipo.commands.studies.cli", *STUDY, *few, "--out", str(out)]
        with open(log, "w") as file:
            process = subprocess.Popen(command, stderr=file, start_new_session=True)
        groups.append(process.pid)
        return process

    def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], object]) -> None:
        while not condition():
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)

    try:
        assert start(whole).wait() == 0, log.read_text()
        first = start(again)
        wait_for(first, lambda: any(map(has_saved, unfinished(again))))
        (run,) = (run for server in children(first.pid) for run in children(server))
        os.kill(run, signal.SIGSTOP)  # it would end with its study, and lives on until it has been waited for
        first.kill()
        first.wait()
        second = start(again)
        said = Path(f"{unfinished(again)[0]}.txt")
        wait_for(second, lambda: "waiting for another process that works in" in said.read_text())
        os.kill(run, signal.SIGCONT)
        assert second.wait() == 0, log.read_text()
        for name in TABLES:
            assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    finally:
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


# Two tasks, two ages, two objectives, two seeds; returns on two scales.
RETURNS = {
    ("easy", 1, "A"): (100.0, 80.0), ("easy", 1, "B"): (60.0, 40.0),
    ("easy", 9, "A"): (50.0, 70.0), ("easy", 9, "B"): (0.0, 20.0),
    ("hard", 1, "A"): (2.0, 3.0), ("hard", 1, "B"): (4.0, 5.0),
    ("hard", 9, "A"): (1.0, 2.0), ("hard", 9, "B"): (2.0, 1.0),
}  # fmt: skip


def rows(*tasks: str) -> list[dict[str, Any]]:
    found = []
    for (task, age, objective), returns in RETURNS.items():
        if tasks and task not in tasks:
            continue
        for seed, value in enumerate(returns):
            row = {"task": task, "age": age, "objective": objective, "seed": seed, "return": value}
            row |= {"success": float(task == "easy")}
            row |= dict.fromkeys(staleness_figures.MECHANISM, 0.5 + seed)
            found.append(row | {"age_mean": age / 2 + seed, "age_p95": float(age)})
    return found


def test_tables_by_hand() -> None:
    cells = {(row["age"], row["objective"]): row for row in staleness_figures.summarise(rows())}
    one = cells[1, "A"]
    assert one["runs"] == 4
    # easy: 0 … 100, hard: 1 … 5; the middle two of 1, .8, .25, .5
    assert one["normalised return"] == pytest.approx((0.8 + 0.5) / 2)
    assert "return" not in one  # two tasks have two scales
    (alone,) = [row for row in staleness_figures.summarise(rows("easy")) if (row["age"], row["objective"]) == (1, "A")]
    assert alone["return"] == pytest.approx(90.0)
    assert one["success"] == pytest.approx(0.5)
    assert "success_last" not in one  # nobody measured it
    assert one["age_mean"] == pytest.approx(1.0)
    assert one["ess"] == pytest.approx(1.0)
    assert cells[9, "B"]["normalised return"] == pytest.approx((0.0 + 0.2) / 2)
    for row in cells.values():
        assert row["normalised return low"] <= row["normalised return"] <= row["normalised return high"]
    better = {row["age"]: row["probability"] for row in staleness_figures.improvements(rows())}
    assert better == {1: (1 + 0) / 2, 9: (1 + 0.5) / 2}
    differences = {row["age"]: row["difference"] for row in staleness_figures.improvements(rows())}
    # the middle two of A: .8, .5 and .5, .25; of B: .4, .75, .6, 1 and 0, .2, .25, 0
    assert differences == pytest.approx({1: 0.65 - 0.675, 9: 0.375 - 0.1})
    profile = {
        row["threshold"]: row["share"]
        for row in staleness_figures.profiles(rows())
        if (row["age"], row["objective"]) == (1, "A")
    }
    assert [profile[0.0], profile[0.5], profile[1.0]] == [1.0, 0.5, 0.0]


def test_tasks_and_settings_by_hand() -> None:
    means = {
        (row["task"], row["age"], row["objective"]): row["normalised return"]
        for row in staleness_figures.by_task(rows())
    }
    assert len(means) == 8
    assert means["easy", 1, "A"] == pytest.approx(0.9)
    assert means["hard", 9, "B"] == pytest.approx(0.125)
    table = [
        {"age": age, "objective": name, "normalised return": value}
        for name, values in {"A": (0.5, 0.1), "A:x=1": (0.4, 0.3), "B": (0.9, 0.9)}.items()
        for age, value in zip((1, 9), values, strict=True)
    ]
    assert [(*row.values(),) for row in staleness_figures.settings(table)] == [
        ("A", "A", pytest.approx(0.3), 0.1, False), ("A", "A:x=1", pytest.approx(0.35), 0.3, True),
        ("B", "B", pytest.approx(0.9), 0.9, True),
    ]  # fmt: skip


def test_settings_of_a_labelled_study_are_a_class_of_their_own() -> None:
    means = {"A": 0.9, "A:x=1": 0.8, "A late": 0.3, "A:x=1 late": 0.4}
    table = [{"age": 1, "objective": name, "normalised return": value} for name, value in means.items()]
    found = {row["objective"]: (row["family"], row["best of its class"]) for row in staleness_figures.settings(table)}
    assert found == {
        "A": ("A", True), "A:x=1": ("A", False), "A late": ("A late", False), "A:x=1 late": ("A late", True),
    }  # fmt: skip


def test_the_report_says_where_the_first_objective_does_not_win() -> None:
    found = rows()
    text = staleness_figures.report(
        staleness_figures.summarise(found), staleness_figures.improvements(found), tasks=2, seeds=2
    )
    assert "2 tasks × 2 seeds" in text
    assert "What is said of the samples is a plain mean." in text
    assert "| normalised return | buffer of 1: age 1.0 (1) | buffer of 9: age 5.0 (9) |\n" in text
    # by all 16 resamplings of B: t(2)·√(2·variance) is .4218 around .675 at 1, .5201 around .1 at 9
    assert "\n| B | 0.68 [0.25, 1.00] | 0.10 [0.00, 0.62] |\n" in text
    assert "- Buffer of 1: A does not win, B came out no lower." in text
    assert "- Buffer of 9: A returns most." in text
    assert "than one of B 0.75" in text


def test_tables_are_made_again_from_the_runs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = tmp_path / "lr=3e-4" / "runs.csv", tmp_path / "out"
    runs.parent.mkdir()
    with open(runs, "w", newline="") as file:
        writer = csv.DictWriter(file, list(staleness.COLUMNS))
        writer.writeheader()
        writer.writerows({"success_last": 0.0, **row} for row in rows("easy"))
    cli.main(["staleness", "--out", str(out), "--ages", "9", "--runs", str(runs)])
    a, b = table(out / "staleness.csv")
    assert [a["objective"], float(a["return"]), float(b["return"])] == ["A", 60.0, 10.0]
    cli.main(["staleness", "--out", str(out), "--runs", str(runs)])
    assert {row["age"] for row in table(out / "staleness.csv")} == {"1", "9"}  # all that are there
    cli.main(["staleness", "--out", str(out), "--ages", "1", "9", "--runs", str(runs), f"late={runs}"])
    assert {row["objective"] for row in table(out / "staleness.csv")} == {"A", "B", "A late", "B late"}
    for bad, message in ((tmp_path / "none.csv", "cannot be read"), (out / "improvement.csv", "needs task")):
        with pytest.raises(SystemExit):
            cli.main(["staleness", "--out", str(out), "--runs", str(bad)])
        assert message in capsys.readouterr().err


def test_tables_of_tasks_that_tell_no_success_are_made_again_too(tmp_path: Path) -> None:
    found = [{key: row[key] for key in row if key != "success"} for row in rows("easy")]
    write_table(found, tmp_path / "runs.csv")  # as the study itself writes it
    for label in ("", "late="):
        cli.main(["staleness", "--out", str(tmp_path / "a"), "--ages", "1", "9", f"--runs={label}{tmp_path}/runs.csv"])
    a, *_ = table(tmp_path / "a" / "staleness.csv")
    assert [a["objective"], float(a["return"])] == ["A late", 90.0]
    assert "success" not in a


def test_a_task_tells_of_success_in_all_runs_or_in_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rows("easy")
    del found[3]["success"]
    write_table(found, tmp_path / "runs.csv")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["staleness", "--out", str(tmp_path / "a"), "--runs", str(tmp_path / "runs.csv")])
    assert "some runs of easy have no success, and others do" in capsys.readouterr().err


def test_runs_are_counted_cell_by_cell(tmp_path: Path) -> None:
    found = [{**row, "seed": row["seed"] + 10 * (row["objective"] == "B"), "success_last": 0.0} for row in rows("easy")]
    write_table(found, tmp_path / "runs.csv")
    cli.main(["staleness", "--out", str(tmp_path / "a"), "--runs", str(tmp_path / "runs.csv")])
    count = len({row["seed"] for row in rows("easy")})
    assert f"over 1 task × {count} seed" in (tmp_path / "a" / "staleness.md").read_text()


def test_plots_of_one_objective_without_success(tmp_path: Path) -> None:
    found = [{key: row[key] for key in row if key != "success"} for row in rows() if row["objective"] == "A"]
    staleness_figures.plot_staleness(staleness_figures.summarise(found), tmp_path / "a.png")
    staleness_figures.plot_profiles(staleness_figures.profiles(found), tmp_path / "b.png")
    assert staleness_figures.improvements(found) == []
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert (tmp_path / "b.png").stat().st_size > 10_000


def test_a_run_is_its_last_evaluation_and_the_second_half_of_its_course(tmp_path: Path) -> None:
    path, columns = tmp_path / "curves.csv", staleness_figures.MECHANISM
    with open(path, "w") as file:
        writer = csv.DictWriter(file, ["frames", *columns.values(), "val/return"])
        writer.writeheader()
        for n in range(4):
            writer.writerow({"frames": n, "val/return": 7 if n == 3 else ""} | dict.fromkeys(columns.values(), 10 * n))
    one = Run("reach-v3", 4, "GIPO", 22)
    found = read_run(one, tmp_path)
    assert found["return"] == 7
    assert "success" not in found
    assert {found[name] for name in columns} == {25.0}
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="does not end with an evaluation"):
        read_run(one, tmp_path)


def test_every_run_of_a_plan_differs_in_the_axis_alone() -> None:
    options = [
        set(Run("reach-v3", age, objective, 22).options(1000, 250, 3))
        for age, objective in itertools.product((1, 16), ("PPOClip", "GIPO:sigma=0.5,sigma_neg_ratio=0.5"))
    ]
    assert options[0] ^ options[2] == {"--data.capacity=250", "--data.capacity=4000"}
    assert options[1] - options[0] == {
        "--model.objective=GIPO", "--model.objective.sigma=0.5", "--model.objective.sigma_neg_ratio=0.5",
    }  # fmt: skip
    assert "--trainer.check_val_every_n_epoch=4" in options[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ages", "0"], "argument --ages: '0' is no whole number from 1 to"),
        (["--ages", "161"], "a run of 32000 frames has only 128 iterations"),
        (["--seeds", "1", "1"], "--seeds names a value twice: 1 1"),
        (["--objectives", "GIPO", "GIPO"], "--objectives names a value twice"),
        (["--objectives", "GIPO:sigma"], "is not NAME or NAME:option=value"),
        (["--objectives", "../GIPO"], "is not NAME or NAME:option=value"),
        (["--train", "data.capacity=3"], "the study itself sets data.capacity"),
        (["--train", "model.objective.sigma=3"], "the study itself sets model.objective.sigma"),
        (["--train", 'model={"objective": "SAPO"}'], "the study itself sets model; leave it out"),
        (["--train", "config=mine.yaml"], "a configuration may set what the study itself sets; hand on its options"),
        (["--processes", "0"], "--processes"),
    ],
)
def test_refusals(words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["staleness", *words, "--out", str(tmp_path)])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not list(tmp_path.iterdir())


def test_options_of_the_study_are_those_of_its_axis() -> None:
    parser = argparse.ArgumentParser()
    staleness.add_arguments(parser)
    defaults = parser.parse_args([])
    assert max(staleness.AGES) * defaults.frames_per_iteration <= defaults.frames
    words = Run("reach-v3", 1, "GIPO", 22).options(1000, 250, 3)
    silent = ("--trainer.logger", "--trainer.enable_progress_bar")
    named = {word.lstrip("-").partition("=")[0] for word in words if not word.startswith(silent)}
    assert named <= set(staleness.AXIS)
