"""The whole loop on a task that is too small to learn: its figures are those of its logs."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import deploy.cli
import gipo.cli
import robots.cli
from deploy.export.artifact import export
from gipo.checkpoints import load_checkpoint
from gipo.commands import demos
from gipo.commands.lineage.cli import main as lineage
from gipo.commands.studies.cli import main
from gipo.commands.studies.pipeline import subjects
from gipo.commands.studies.pipeline.processes import Commands
from gipo.commands.studies.pipeline.subjects import Subject, seen
from robots.log import files_below, read_images, read_log
from tests.needs import needs_camera

SMALL = [
    "--frames", "40", "--logged", "2", "--episodes", "2", "--rounds", "1", "--processes", "1",
    "--train", "data.frames_per_iteration=20", "data.collector.num_envs=1", "data.evaluation.num_envs=1",
    "data.rounds=1", "data.batch=16", "data.capacity=40",
    "--post", "data.iterations=2", "data.rounds=1", "data.batch=16", "data.min_ess=0", "data.ingest.workers=1",
]  # fmt: skip


def in_process(_: Commands, command: str, args: Sequence[str], *rest: object) -> None:
    """The same commands without the time that Python takes to start."""
    entry = {
        "gipo": gipo.cli.main, "gipo-demos": demos.main, "gipo-deploy": deploy.cli.main, "gipo-robot": robots.cli.main,
    }[command]  # fmt: skip
    assert not entry(list(args))


def check(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads((out / "demo.json").read_text())
    (result,) = found["seeds"]
    assert (result["seed"], found["gap"]) == (3, {"action_offset": 0.2})
    assert len(result["rounds"]) == 2
    for each in result["rounds"]:
        episodes = [episode for path in files_below(Path(each["compared"])) for episode in read_log(path).episodes]
        assert [episode.number for episode in episodes] == [0, 1]
        assert each["success"] == sum(bool(episode.success) for episode in episodes) / 2
        assert each["return"] == pytest.approx(sum(float(e["reward"].sum(dtype=float)) for e in episodes) / 2)
        assert each["low"] <= each["success"] <= each["high"]
    before, after = (
        [tuple(episode["observation"][0, -3:].tolist()) for episode in read_log(path).episodes]
        for each in result["rounds"]
        for path in files_below(Path(each["compared"]))
    )
    assert before == after  # compared on the same goals …
    logged = [
        tuple(e["observation"][0, -3:])
        for p in files_below(Path(result["rounds"][0]["logs"]))
        for e in read_log(p).episodes
    ]
    assert not set(logged) & set(before)  # … that are not those it learned from
    assert found["median_gain"] == result["rounds"][1]["success"] - result["rounds"][0]["success"]
    first, second = (load_checkpoint(each["checkpoint"])["gipo"] for each in result["rounds"])
    assert second["init_from"] == first["id"]
    assert f"{result['rounds'][1]['success']:.2f} [" in (out / "demo.md").read_text()
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    lineage([str(out), "--out", str(out / "lineage.png")])
    assert "round-0" in capsys.readouterr().out


@pytest.mark.usefixtures("no_plot")
def test_the_loop_closes_and_a_second_call_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []

    def run(commands: Commands, command: str, args: Sequence[str], *rest: object) -> None:
        called.append(command)
        in_process(commands, command, args)

    monkeypatch.setattr(Commands, "run", run)
    args = ["loop", "--out", str(tmp_path / "out"), "--seeds", "3", "--gap", "action_offset=.2", *SMALL]
    main(args)
    assert called == [
        "gipo", "gipo-deploy", "gipo-robot", "gipo-robot", "gipo", "gipo-robot", "gipo-deploy", "gipo-robot",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("[")] == [
        "[1/8] Train in simulation for 40 steps", "[2/8] Export the policy that goes onto the robot",
        "[3/8] Log 2 episodes of the robot to learn from",
        "[4/8] Audit the logs: recompute every log-prob from the artifact alone",
        "[5/8] Post-train on these logs alone", "[6/8] Run the policy that logged them: 2 goals to compare",
        "[7/8] Export the policy that goes onto the robot",
        "[8/8] Run it on the robot: the same 2 goals",
    ]  # fmt: skip
    assert (
        len(re.findall(r"^      (?:\[6/8\] )?success \d\.\d\d \[\d\.\d\d, \d\.\d\d\], mean return ", said, re.M)) == 3
    )
    assert "   ├─ train/checkpoints/last.ckpt   trained in simulation\n" in said
    assert "over budget" not in said
    check(tmp_path / "out", capsys)
    figures = (tmp_path / "out" / "demo.json").read_bytes()
    main(args)
    assert len(called) == 8
    assert (tmp_path / "out" / "demo.json").read_bytes() == figures
    with pytest.raises(SystemExit, match="2"):
        main([*args, "--frames", "60"])
    assert "was made with other options" in capsys.readouterr().err


@pytest.mark.campaign
def test_the_loop_closes_with_the_commands_a_user_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["loop", "--out", str(tmp_path / "out"), "--seeds", "3", "--gap", "action_offset=.2", *SMALL])
    check(tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--rounds", "0"], "'0' is no whole number from 1 to"),
        (["--logged", "0"], "'0' is no whole number from 1 to"),
        (["--gap", "nonsense=1"], "nonsense"),
        (["--gap", "action_offset=7"], "action_offset is 7"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_runs(
    extra: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["loop", "--out", str(tmp_path), *extra])
    error = capsys.readouterr().err
    assert error.startswith("gipo-study: error: ")
    assert reason in error
    assert error.count("\n") == 1


@needs_camera
@pytest.mark.usefixtures("no_plot")
def test_the_loop_closes_for_a_policy_that_sees_metaworld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its policy is cloned from a script that saw more than it does, and learns from what the robot's camera saw."""
    called: list[str] = []

    def run(commands: Commands, command: str, args: Sequence[str], *rest: object) -> None:
        called.append(command)
        if command == "gipo-deploy":  # which checks with a thousand images
            export(Path(args[1]), Path(args[3]), observations=16)
        else:
            in_process(commands, command, args)

    def shorter(task: str) -> Subject:
        subject = seen(task)
        return replace(subject, robot=tuple("20" if word == "150" else word for word in subject.robot))

    monkeypatch.setattr(Commands, "run", run)
    monkeypatch.setattr(subjects, "seen", shorter)
    main([
        "loop", "--out", str(tmp_path), "--seeds", "3", "--task", "camera:button-press-topdown-v3", "--rounds", "1",
        "--gap", "light=.5", "--demonstrations", "1", "--logged", "2", "--episodes", "2", "--processes", "1",
        "--train", "data.iterations=1", "data.rounds=1", "data.batch=8", "data.evaluation.episodes=1",
        "data.evaluation.num_envs=1", "--post", "data.iterations=1", "data.rounds=1", "data.batch=2", "data.min_ess=0",
        "model.critic_warmup=0", "data.ingest.workers=1", "data.ingest.audit=1.0",
    ])  # fmt: skip
    assert called == [
        "gipo-demos", "gipo", "gipo-deploy", "gipo-robot", "gipo-robot", "gipo", "gipo-robot", "gipo-deploy",
        "gipo-robot",
    ]  # fmt: skip
    found = json.loads((tmp_path / "demo.json").read_text())
    (result,) = found["seeds"]
    assert found["gap"] == {"light": 0.5}
    assert [each["episodes"] for each in result["rounds"]] == [2, 2]
    (log,) = files_below(Path(result["rounds"][0]["logs"]))
    assert [row["step"] for row in read_images(log) if row["episode"] == 0] == [0, 10, 20]
    first, second = (load_checkpoint(each["checkpoint"])["gipo"] for each in result["rounds"])
    assert second["init_from"] == first["id"]
