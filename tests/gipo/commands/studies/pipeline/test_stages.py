"""Stages run once: finished ones are skipped, interrupted ones begin again, others' folders are left alone."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from gipo.commands.studies.pipeline.once import is_done, once
from gipo.commands.studies.pipeline.processes import Commands
from gipo.commands.studies.pipeline.robots import RobotScore, robot_score
from gipo.commands.studies.pipeline.stages import Stages
from gipo.commands.studies.pipeline.subjects import TOY, parse_gap
from gipo.commands.studies.pipeline.versions import IN_FLOAT32
from gipo.common.errors import UserError
from gipo.common.files import locked
from robots.log import append_label, read_log
from tests.in_process import Calls, written_down
from tests.offline import Robot
from tests.runs import dead


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What was run, of commands that do nothing."""
    found: Calls = []
    monkeypatch.setattr(Commands, "run", written_down(found))
    return found


def test_a_finished_stage_is_not_run_again(calls: Calls, tmp_path: Path) -> None:
    for _ in range(2):
        assert Stages({}).export(tmp_path / "a.ckpt", tmp_path / "p" / "a.onnx") == tmp_path / "p" / "a.onnx"
        (tmp_path / "p" / "a.onnx").touch()
    assert calls == [("gipo-deploy", ["export", f"{tmp_path}/a.ckpt", "--out", f"{tmp_path}/p/a.onnx"])]
    with pytest.raises(UserError, match=r"p was made with other options; name another --out, or delete it"):
        Stages({}).export(tmp_path / "b.ckpt", tmp_path / "p" / "a.onnx")


def test_an_artifact_that_is_no_longer_there_is_exported_again(calls: Calls, tmp_path: Path) -> None:
    artifact = tmp_path / "p" / "a.onnx"
    for _ in range(2):
        Stages({}).export(tmp_path / "a.ckpt", artifact)
        artifact.touch()
    artifact.unlink()
    Stages({}).export(tmp_path / "a.ckpt", artifact)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ('["b.ckpt", "--out=a b", "--x", "--n", "3"]', r"it has b\.ckpt where a\.ckpt is asked for"),
        ('["a.ckpt", "--out=a b", "--x", "--n", "2"]', "it has --n 2 where --n 3 is asked for"),
        ('["a.ckpt"]', "it has nothing where '--out=a b' is asked for"),
        ('["a.ckpt", "--out=a b", "--x", "--y=1", "--n", "3"]', "it has --y=1 where nothing is asked for"),
        ('["--x", "--out=a b", "a.ckpt", "--n", "3"]', r"p\.done\.json has them in another order"),
        ('["a.ck', r"p\.done\.json is damaged"),
        ("7", r"p\.done\.json is damaged"),
    ],
)
def test_what_other_options_a_stage_was_made_with_is_said(kept: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "p.done.json").write_text(kept)
    with pytest.raises(UserError, match=rf"what was made from it \(.*{says}\)$"):
        is_done(tmp_path, "p", ["a.ckpt", "--out=a b", "--x", "--n", "3"])


def test_an_interrupted_stage_is_run_again_with_the_same_options_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Commands, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Stages({}).train(tmp_path / "t", 1, 1000)
    calls: Calls = []
    monkeypatch.setattr(Commands, "run", written_down(calls))
    with pytest.raises(UserError, match="other options"):
        Stages({}).train(tmp_path / "t", 1, 2000)
    assert Stages({}).train(tmp_path / "t", 1, 1000) == tmp_path / "t" / "checkpoints"
    ((command, args),) = calls
    assert command == "gipo"
    assert args == [
        "fit", IN_FLOAT32, "--seed_everything=1", "--data.total_frames=1000", "--checkpoint.keep=true",
        f"--trainer.default_root_dir={tmp_path}/t",
    ]  # fmt: skip


def test_an_interrupted_run_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = tmp_path / "t" / "checkpoints" / "last.ckpt"

    def saved_and_interrupted(*_: object) -> None:
        last.parent.mkdir(parents=True)
        last.touch()
        raise KeyboardInterrupt

    def post_train() -> Path:
        logs, policies = [tmp_path / "l"], tmp_path / "p"
        return Stages({}).post_train(tmp_path / "t", logs, tmp_path / "i.ckpt", policies, 5, ["--data.rounds=1"])

    with monkeypatch.context() as patch:
        patch.setattr(Commands, "run", saved_and_interrupted)
        with pytest.raises(KeyboardInterrupt):
            post_train()
    calls: Calls = []
    monkeypatch.setattr(Commands, "run", written_down(calls))
    made = post_train()
    assert made == last
    assert calls[0][1] == [
        "fit", "--config", f"{tmp_path}/t/config.yaml", f"--ckpt_path={last}",
        f"--trainer.default_root_dir={tmp_path}/t",
    ]  # fmt: skip
    # … which is the same stage as the one that was asked for
    (words,) = {path.read_text() for path in (tmp_path / "t").glob("fit.*.json")}
    assert "--data.rounds=1" in json.loads(words)


def test_logs_of_an_interrupted_drive_are_cleared(
    robot: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = tmp_path / "logs", []

    def driving(command: str, args: Sequence[str], *_: object) -> None:
        seen.append(sorted(path.name for path in folder.glob("*.mcap")))
        (folder / f"{len(seen)}.mcap").write_bytes(robot.logs[0].read_bytes())
        if len(seen) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Commands, "run", driving)
    with pytest.raises(KeyboardInterrupt):
        Stages({}).drive(robot.artifact, folder, 2, 0)
    found = Stages({}).drive(robot.artifact, folder, 2, 0)  # of its three episodes, two are judged
    assert seen == [[], []]
    assert [path.name for path in folder.glob("*.mcap")] == ["2.mcap"]
    assert found.successes == (True, False)


def test_files_that_are_not_of_the_study_are_never_deleted(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "mine.mcap").touch()
    with pytest.raises(UserError, match="holds files not of this study"):
        Stages({}).drive(tmp_path / "a.onnx", tmp_path, 2, 0)
    assert (tmp_path / "mine.mcap").exists()
    assert calls == []


def test_what_a_kill_left_before_a_stage_had_begun_is_no_file_of_others(tmp_path: Path) -> None:
    (half := tmp_path / "export" / f".a.started.json.{dead()}.partial").parent.mkdir()
    half.write_text("[")
    once(half.parent, "a", ["word"], lambda lock: None, fresh=True)
    assert sorted(path.name for path in half.parent.iterdir()) == ["a.done.json", "a.started.json"]


def test_a_loop_of_the_toy_has_a_camera_and_a_gap_of_its_own(calls: Calls, tmp_path: Path) -> None:
    stages = Stages(parse_gap(["light=.5", "shift_x=.1"], TOY), TOY)
    stages.train(tmp_path / "t", 1, 1000)
    stages.export(tmp_path / "a.ckpt", tmp_path / "p" / "a.onnx")
    with pytest.raises(UserError, match="0 judged episodes of 2"):
        stages.drive(tmp_path / "a.onnx", tmp_path / "l", 2, 0)
    train, export, drive = (args for _, args in calls)
    assert train[:4] == ["fit", IN_FLOAT32, "--config=toy_vla.yaml", "--data.task.init_args.shown=image"]
    assert export[-2:] == ["--rate", "10"]
    assert drive[1:5] == ["--robot", "robots.drivers.toy:robot", "--camera", "front"]
    assert [word for word in drive if "=" in word] == ["light=0.5", "shift_x=0.1"]
    for text, said in (("delay=2", "delay"), ("light=11", "light is 11.0; it must be a number from 0 to 10")):
        with pytest.raises(UserError, match=said):
            parse_gap([text], TOY)


def test_no_stage_begins_once_the_study_has_ended(tmp_path: Path) -> None:
    stages = Stages({})
    stages.commands.end()
    with pytest.raises(UserError, match="the study has ended"):
        stages.export(tmp_path / "a.ckpt", tmp_path / "p" / "a.onnx")
    assert not (tmp_path / "p" / "a.done.json").exists()


def test_a_study_that_has_ended_waits_for_no_other(tmp_path: Path) -> None:
    stages, folder = Stages({}), tmp_path / "p"
    folder.mkdir()
    with locked(folder), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stages.export, tmp_path / "a.ckpt", folder / "a.onnx")
        assert not wait([waiting], 0.2).done
        stages.commands.end()
        with pytest.raises(UserError, match="the study has ended"):
            waiting.result(30)
    assert not list(folder.iterdir())


def test_a_robot_that_fails_ends_no_other_command_of_the_study(tmp_path: Path) -> None:
    stages = Stages({})
    for name in ("one", "other"):
        with pytest.raises(UserError, match=r"(?s)`gipo-robot run .* ended with exit code 2; .*none\.onnx"):
            stages.drive(tmp_path / "none.onnx", tmp_path / name, 2, 0)


def test_the_robot_gets_the_gap(calls: Calls, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 0 judged episodes of 3; the robot was stopped"):
        Stages({"action_gain": 0.5, "delay": 2}).drive(tmp_path / "a.onnx", tmp_path / "l", 3, 77)
    words = " ".join(calls[0][1])
    assert "--seed 77 " in words
    assert " --set action_gain=0.5 --set delay=2 " in words
    assert " --episodes 3 --first 0 " in words


def test_robots_side_by_side_share_the_episodes(calls: Calls, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 0 judged episodes of 5"):
        Stages({}, beside=3).drive(tmp_path / "a.onnx", tmp_path / "l", 5, 77)
    shares = {args[args.index("--first") + 1]: args[args.index("--episodes") + 1] for _, args in calls}
    assert shares == {"0": "1", "1": "2", "3": "2"}
    assert {args[args.index("--log") + 1] for _, args in calls} == {
        f"{tmp_path}/l/from-{first:06}" for first in (0, 1, 3)
    }
    # … and what was begun with three may be finished with one.
    (tmp_path / "l" / "drive.done.json").unlink()
    with pytest.raises(UserError, match="holds 0 judged episodes of 5"):
        Stages({}).drive(tmp_path / "a.onnx", tmp_path / "l", 5, 77)
    assert len(calls) == 4


def test_the_outcome_is_what_the_logs_say(robot: Robot, tmp_path: Path) -> None:
    log = robot.log(tmp_path / "a.mcap", (12, 10, 15), seed=3)  # unknown, success, failure
    with pytest.raises(UserError, match="holds 2 judged episodes of 3"):
        robot_score(tmp_path, 3)
    append_label(log, read_log(log).header.session, 0, success=True, reward=None)
    found = robot_score(tmp_path, 3)
    assert found.successes == (True, True, False)
    rewards = [episode["reward"].sum(dtype=float) for episode in read_log(log).episodes]
    assert found.returns == pytest.approx(rewards)
    (tmp_path / "b.mcap").write_bytes(b"no log")
    with pytest.raises(UserError, match=r"b\.mcap"):
        robot_score(tmp_path, 3)


def test_a_damaged_log_names_the_folder_to_delete(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(b"")
    with pytest.raises(UserError, match=rf"a\.mcap ends before .*; delete {tmp_path}, and they are driven again$"):
        robot_score(tmp_path, 3)


def test_the_summary_by_hand() -> None:
    found = RobotScore((True, False, True, True), (1.0, 2.0, 3.0, 6.0))
    assert found.text() == "success 0.75 [0.30, 0.95], mean return 3"
    summary = found.summary()
    assert (summary["episodes"], summary["success"], summary["return"]) == (4, 0.75, 3.0)
    # Wilson: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    z, p, n = 1.959964, 0.75, 4
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert (summary["low"], summary["high"]) == pytest.approx(
        ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)), abs=1e-5
    )


def test_gaps() -> None:
    assert parse_gap(["action_offset=.45", "delay=2"]) == {"action_offset": 0.45, "delay": 2}
    assert parse_gap(["late", "delay=1"]) == {"delay": 1, "friction_scale": 30}  # what is named last holds
    for text, reason in (("speed=2", "speed"), ("delay=-1", "delay is -1"), ("delay", "must be key=value")):
        with pytest.raises(UserError, match=rf"--gap {text}: .*{reason}"):
            parse_gap([text])
