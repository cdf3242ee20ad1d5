"""From demonstrations: gains by hand, what the report claims, and that a study goes on where it was stopped."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gipo.commands.studies.cli import main
from gipo.commands.studies.demonstrations import report, study
from gipo.commands.studies.demonstrations.runs import Cell, Makers
from gipo.commands.studies.pipeline.forks import Forks
from gipo.common.errors import UserError
from gipo.common.tables import write_table

Capture = pytest.CaptureFixture[str]


def rows(gains: dict[tuple[str, str], list[float]], before: float = 0.4) -> list[dict[str, Any]]:
    return [
        {
            "task": task, "seed": seed, "buffer": 2, "objective": name,
            **{f"{score}_{when}": before + gain * (when == "after") for score in ("success", "last", "return")
               for when in ("before", "after")},
        }
        for (task, name), values in gains.items()
        for seed, gain in enumerate(values)
    ]  # fmt: skip


FOUND = rows({
    ("easy", "GIPO"): [0.3, 0.3, 0.3], ("easy", "SAPO"): [0.1, 0.2, 0.3],
    ("hard", "GIPO"): [-0.2, 0.0, 0.2], ("hard", "SAPO"): [-0.1, -0.1, -0.1],
})  # fmt: skip


def test_a_gain_is_that_of_pairs_of_one_clone() -> None:
    unequal = rows({("a", "GIPO"): [0.1]}, before=0.2) + rows({("a", "GIPO"): [0.3]}, before=0.5)
    (row,) = report.gains(unequal)
    assert (row["seeds"], row["before"], row["after"], row["gain"]) == pytest.approx((2, 0.35, 0.55, 0.2))
    assert row["low"] < 0 < 0.2 < row["high"]
    (single,) = report.gains(rows({("a", "GIPO"): [0.1]}))
    assert (single["low"], single["high"]) == (-1, 1)  # of one seed nothing is known of another


def test_the_report_counts_what_was_raised_and_lowered() -> None:
    text = report.report(report.gains(FOUND), FOUND)
    assert "| buffer of 2 | clone | GIPO | SAPO |" in text
    assert "| easy | 0.40 | +0.30 [" in text
    # Of -.2 0 .2 .3 .3 .3 the least and one of the greatest are left out: (0 + .2 + .3 + .3)/4.
    assert "GIPO: +0.20 [" in text
    assert "raised (the interval above 0) on 1 of 2, lowered on 0." in text
    # easy .3, hard 0: .15 ± 12.7·.15, more than shares can differ by
    assert "lowered on 0. Mean of the tasks +0.15 [-1.00, +1.00], with Student's interval over them." in text
    assert "SAPO: " in text
    assert "raised (the interval above 0) on 0 of 2, lowered on 1." in text
    # easy: .3 beats .1 and .2 and ties with .3, thrice: 7.5 of 9; hard: 0 and .2 beat all, -.2 none: 6 of 9
    # easy .3 − .2, hard 0 + .1: the same difference
    assert "GIPO's gain minus SAPO's +0.10 [+0.10, +0.10], mean of the tasks" in text
    assert f"probability that GIPO gains more {(7.5 + 6) / 18:.2f} [" in text


def test_success_at_the_last_step_is_told_too_and_where_nothing_is_left_to_gain() -> None:
    found = rows({("a", "GIPO"): [0.0, 0.0], ("b", "GIPO"): [0.0, 0.0]}, before=1.0)
    for row in found:
        row |= {"last_before": 0.5, "last_after": 0.75 if row["task"] == "a" else 0.5}
    text = report.report(report.gains(found), found)
    assert "Success at any step, buffer of 2, GIPO: +0.00 [" in text
    assert "raised (the interval above 0) on 0 of 2, lowered on 0, no room above the clone on 2." in text
    assert "raised (the interval above 0) on 1 of 2, lowered on 0. Mean of the tasks +0.12 [" in text
    assert "minus" not in text


def test_the_interval_over_tasks_is_students_of_their_means() -> None:
    found = rows({("a", "GIPO"): [0.3, 0.3], ("b", "GIPO"): [0.1, -0.1], ("c", "GIPO"): [0.1, 0.2]})
    half = 4.302653 * 0.15 / 3**0.5
    assert f"Mean of the tasks +0.15 [{0.15 - half:+.2f}, {0.15 + half:+.2f}]" in report.report(
        report.gains(found), found
    )


def test_tables_and_figure_are_made_again_from_runs(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "first").mkdir()
    study.write(FOUND, tmp_path / "first")
    write_table(FOUND, tmp_path / "first" / "runs.csv")
    main(["demonstrations", "--runs", str(tmp_path / "first" / "runs.csv"), "--out", str(tmp_path / "again")])
    assert "GIPO's gain minus SAPO's" in capsys.readouterr().out
    for name in ("demonstrations.csv", "demonstrations.md"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "first" / name).read_text()
    assert (tmp_path / "again" / "demonstrations.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_a_file_stay_where_they_are(tmp_path: Path, capsys: Capture) -> None:
    write_table(FOUND, tmp_path / "given.csv")
    (tmp_path / "runs.csv").write_text("my own")
    given = ["--runs", str(tmp_path / "given.csv"), "--objectives", "SAPO", "GIPO"]
    main(["demonstrations", "--out", str(tmp_path), *given])
    assert (tmp_path / "runs.csv").read_text() == "my own"
    assert "SAPO's gain minus GIPO's -0.10" in capsys.readouterr().out
    other = [{**row, "last_before": 0.7} if row["objective"] == "SAPO" else row for row in FOUND]
    write_table(other, tmp_path / "given.csv")
    with pytest.raises(SystemExit, match="2"):
        main(["demonstrations", "--out", str(tmp_path), *given])
    assert "the runs of easy with seed 0 began with different clones" in capsys.readouterr().err


def test_the_picture_has_every_task_in_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: drawn.append(figure))
    table = report.gains([row for row in FOUND if row["objective"] == "GIPO"])
    table += report.gains([row for row in FOUND if row["objective"] == "SAPO"])[::-1]  # as of files that were joined
    report.plot(table, tmp_path / "a.png")
    (axes,) = drawn[0].axes
    tasks = [label.get_text() for label in axes.get_yticklabels()]
    after = {(tasks[round(y)], line.get_label()): x for line in axes.lines if line.get_marker() == "o"
             for x, y in zip(*line.get_data(), strict=True)}  # fmt: skip
    assert after == {(row["task"], row["objective"]): row["after"] for row in table}


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--seeds", "1", "1"], "--seeds names a value twice: 1 1"),
        (["--objectives", "GIPPO"], "there is no such objective; the nearest: GIPO"),
        (["--demonstrations", "0"], "'0' is no whole number from 1 to"),
        (
            ["--post", "model.objective.sigma=2"],
            "--post model.objective.sigma=2: the study itself sets model.objective",
        ),
        (["--clone", "data.iterations=2"], "--clone data.iterations=2: the study itself sets data.iterations"),
        (
            ["--post", "data.rounds=2", "data.evaluation.deterministic=true"],
            "--clone and --post differ in data.evaluation.deterministic=true",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(extra: list[str], reason: str, tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["demonstrations", "--out", str(tmp_path), *extra])
    assert reason in capsys.readouterr().err


def test_every_run_starts_from_the_clone_of_its_task_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, list[str], list[str]]] = []
    monkeypatch.setattr("gipo.commands.studies.pipeline.forks.Forks.fit", lambda self, *run: asked.append(run))
    monkeypatch.setattr("gipo.commands.studies.pipeline.processes.Commands.run", lambda self, *run: None)
    from gipo.commands.studies.cli import build_parser

    options = build_parser("demonstrations").parse_args(["demonstrations", "--out", str(tmp_path)])
    makers, cell = Makers(options), Cell("assembly-v3", 64, 16, "PPOClip:clip=0.5")
    makers.clone(cell)
    makers.post_train(cell)
    (clone, cloning, showing), (run, training, clones) = asked
    assert clone == tmp_path / "assembly-v3" / "seed-64" / "clone"
    assert {"--config=bc.yaml", "--data.iterations=30", "--trainer.check_val_every_n_epoch=30"} <= set(cloning)
    assert run.parent == clone.parent
    assert {
        f"--model.init_from={clone}/checkpoints/last.ckpt", "--data.capacity=64000", "--model.objective=PPOClip",
        "--model.objective.clip=0.5", "--trainer.check_val_every_n_epoch=30", "--data.collector.workers=0",
    } <= set(training)  # fmt: skip
    same = {"--seed_everything=64", "--data.task=assembly-v3", "--data.evaluation.episodes=50"}
    assert same <= set(cloning) & set(training)
    # of another clone, or of another's demonstrations, it is another run
    assert {"--episodes=10", "--noise=0.2", "--seed=64"} <= set(showing)
    assert set(clones) == {*cloning, *showing}


def test_a_clone_that_cannot_be_made_keeps_no_other_from_being_post_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fit(self: Forks, folder: Path, options: list[str], of: Sequence[str] = ()) -> None:
        if folder.parent == tmp_path / "push-v3" / "seed-1":
            raise UserError("nothing was shown")
        folder.mkdir(parents=True)
        (folder / "fit.done.json").touch()
        (folder / "curves.csv").write_text("val/success,val/success_last,val/return\n.5,.5,1\n")

    monkeypatch.setattr("gipo.commands.studies.pipeline.forks.Forks.fit", fit)
    monkeypatch.setattr("gipo.commands.studies.pipeline.processes.Commands.run", lambda self, *run: None)
    with pytest.raises(SystemExit):
        main(["demonstrations", "--out", str(tmp_path), "--tasks", "push-v3", "reach-v3", "--seeds", "1", "2",
              "--buffers", "2"])  # fmt: skip
    assert (
        "1 runs failed, the tables are of tasks that lack none, runs.csv of all others; the first: nothing was shown"
        in capsys.readouterr().err
    )
    with open(tmp_path / "runs.csv") as file:
        found = {(row["task"], row["seed"]) for row in csv.DictReader(file)}
    assert found == {("reach-v3", "1"), ("reach-v3", "2"), ("push-v3", "2")}
    with open(tmp_path / "demonstrations.csv") as file:
        assert {row["task"] for row in csv.DictReader(file)} == {"reach-v3"}
    assert (tmp_path / "push-v3" / "seed-2" / "buffer-2-SAPO" / "curves.csv").exists()  # made, if not in a table


def test_tables_are_of_tasks_that_lack_no_run() -> None:
    def without(*lost: tuple[str, int, str]) -> list[dict[str, Any]]:
        return [row for row in FOUND if (row["task"], row["seed"], row["objective"]) not in lost]

    assert study.whole_tasks(FOUND) == FOUND
    assert {row["task"] for row in study.whole_tasks(without(("easy", 1, "GIPO")))} == {"hard"}
    # as many runs of each, and yet none is whole: two gains of one objective are not compared with three of another
    assert study.whole_tasks(without(("easy", 1, "GIPO"), ("hard", 2, "SAPO"))) == []
    # nor where a run is missing of every task: two of one objective would stand beside three of another
    assert study.whole_tasks(without(("easy", 1, "GIPO"), ("hard", 1, "GIPO"))) == []
    assert study.whole_tasks([]) == []


def test_nothing_is_post_trained_from_a_clone_that_was_made_with_other_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    old = tmp_path / "reach-v3" / "seed-1" / "clone"
    old.mkdir(parents=True)
    (old / "fit.done.json").touch()
    asked: list[Path] = []

    def fit(self: Forks, folder: Path, options: list[str], of: Sequence[str] = ()) -> None:
        asked.append(folder)
        raise UserError(f"{folder} was made with other options")

    monkeypatch.setattr("gipo.commands.studies.pipeline.forks.Forks.fit", fit)
    monkeypatch.setattr("gipo.commands.studies.pipeline.processes.Commands.run", lambda self, *run: None)
    with pytest.raises(SystemExit):
        main(["demonstrations", "--out", str(tmp_path), "--tasks", "reach-v3", "--seeds", "1", "--buffers", "2"])
    assert "1 runs failed" in capsys.readouterr().err
    assert asked == [old]


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_the_study_runs_end_to_end_and_again_makes_nothing(tmp_path: Path, capsys: Capture) -> None:
    few = ["data.evaluation.num_envs=1", "data.rounds=2", "data.batch=32"]
    command = [
        "demonstrations", "--out", str(tmp_path), "--tasks", "reach-v3", "--seeds", "3", "--buffers", "1",
        "--objectives", "GIPO", "PPOClip", "--demonstrations", "2", "--iterations", "2", "--frames", "1000",
        "--frames-per-iteration", "1000",
        "--episodes", "1", "--processes", "1", "--clone", *few, "--post", *few, "model.critic_warmup=0",
    ]  # fmt: skip
    main(command)
    with open(tmp_path / "runs.csv") as file:
        found = list(csv.DictReader(file))
    assert [(row["task"], row["seed"], row["objective"]) for row in found] == [
        ("reach-v3", "3", "GIPO"), ("reach-v3", "3", "PPOClip"),
    ]  # fmt: skip
    assert found[0]["success_before"] == found[1]["success_before"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("curves.csv")}
    assert len(before) == 3
    main(command)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "Buffer of 1: GIPO's gain minus PPOClip's" in capsys.readouterr().out
