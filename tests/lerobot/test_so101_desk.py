"""The arm at the desk under LeRobot's own driver: driven by our loop, and taught by the real `lerobot-record`."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

import examples.so101.record as recording
from examples.so101.bus.registers import TURN
from examples.so101.desk import DeskSO101, DeskSO101Config
from examples.so101.emulator import NAME, Emulator
from examples.so101.scene import DRIVEN, RATE, REACH, SPEED
from gipo.cli import main as gipo
from robots.cli import main
from robots.log import files_below, read_log
from tests.lerobot.patience import PATIENT
from tests.lerobot.so101 import make_policy

SPEC = Path(recording.__file__).parent / "reach.json"


def test_the_arm_is_driven_to_its_start_helped_and_judged_and_its_log_is_audited(tmp_path: Path) -> None:
    actions = tuple(f"{joint}.vel" for joint in DRIVEN)
    units = REACH.units, ("deg/s",) * len(DRIVEN)
    make_policy(tmp_path / "policy.onnx", REACH.readings, actions, units, (-SPEED,) * 4, (SPEED,) * 4)
    with Emulator(tmp_path / "desk") as arm:
        given = {"port": arm.port.path, "scene": arm.folder / "scene", "calibration_dir": arm.folder / "calibration",
                 "id": NAME, "wait": "false", "device": "examples.so101.desk:DeskSO101", "spec": SPEC}  # fmt: skip
        settings = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        person = ["--operator", "examples.so101.person:DeskPerson", "--operator-set", "help=true"]
        ends = [*PATIENT, "--steps", str(REACH.steps), "--episodes", "2"]
        policy, logs = str(tmp_path / "policy.onnx"), str(tmp_path / "logs")
        assert main(["run", "--robot", "lerobot", *settings, *person, *ends, "--policy", policy, "--log", logs]) == 0
    (file,) = files_below(tmp_path / "logs")
    first, *_ = read_log(file).episodes
    assert first["source"].tolist().count(1) > 0, "a random policy stalls, and the person helps"
    assert first.success is not None
    assert main(["audit", str(file), "--policies", str(tmp_path)]) == 0


def test_what_lerobot_record_writes_is_cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "EPISODE", 2)
    monkeypatch.setattr(recording, "RESET", 1)
    monkeypatch.setattr(recording, "ask_for_real_time", lambda *_, **__: False)  # it would outlast this test
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "unhurried"), prepend=os.pathsep)
    recording.record(tmp_path, episodes=2, seed=0)
    low, high = "[-100,-100,-100,-100,-10,0]", "[100,100,100,100,10,100]"
    gipo(["fit", "--config", "bc.yaml", f"--data.logs={tmp_path / 'taught'}", f"--data.action_low={low}",
          f"--data.action_high={high}", "--trainer.max_epochs=1", "--data.rounds=1", "--data.batch=16",
          f"--trainer.default_root_dir={tmp_path / 'clone'}"])  # fmt: skip
    assert (tmp_path / "clone" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("most", [None, 2.0])
def test_what_is_said_to_be_sent_is_what_the_servos_were_told(most: float | None, tmp_path: Path) -> None:
    """A target is held back near its joint as the desk has it, and nearer by LeRobot's `max_relative_target`."""
    with Emulator(tmp_path) as arm:
        config = DeskSO101Config(port=arm.port.path, id=NAME, calibration_dir=arm.folder / "calibration",
                                 scene=str(arm.folder / "scene"), max_relative_target=most)  # fmt: skip
        robot = DeskSO101(config)
        robot.connect(calibrate=False)
        robot.prepare(0)

        def goals() -> np.ndarray:
            robot.bus.sync_read("Present_Position")  # answered after all that was written before
            return np.array([servo.get("Goal_Position") for servo in arm.port.line.servos[: len(DRIVEN)]])

        found = []
        for _ in range(6):  # 18 degrees are asked for
            before = goals()
            sent = robot.send_action({f"{joint}.vel": SPEED for joint in DRIVEN})
            found.append([sent[f"{joint}.vel"] for joint in DRIVEN])
            told = (goals() - before) * 360 / TURN * RATE
            assert found[-1] == pytest.approx(told, abs=360 / TURN * RATE)  # a step of the encoder
        robot.disconnect()
    assert (found[0] == [SPEED] * len(DRIVEN)) == (most is None), "what is not held back is exactly what was asked for"
    assert np.min(found) < SPEED
