"""The arm at the desk under LeRobot's own driver: driven by our loop, and taught by the real `lerobot-record`."""

from pathlib import Path

import pytest

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

import examples.so101.record as recording
from examples.so101.emulator import NAME, Emulator
from examples.so101.scene import DRIVEN, REACH, SPEED
from gipo.cli import main as gipo
from robots.cli import main
from robots.log import files_below, read_log
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
        patient = ["--deadline", "8", "--max-age", "8", "--steps", str(REACH.steps), "--episodes", "2"]
        policy, logs = str(tmp_path / "policy.onnx"), str(tmp_path / "logs")
        main(["run", "--robot", "lerobot", *settings, *person, *patient, "--policy", policy, "--log", logs])
    (file,) = files_below(tmp_path / "logs")
    first, *_ = read_log(file).episodes
    assert first["source"].tolist().count(1) > 0, "a random policy stalls, and the person helps"
    assert first.success is not None
    assert main(["audit", str(file), "--policies", str(tmp_path)]) == 0


def test_what_lerobot_record_writes_is_cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "EPISODE", 1)
    monkeypatch.setattr(recording, "RESET", 1)
    recording.record(tmp_path, episodes=2, seed=0)
    low, high = "[-100,-100,-100,-100,-10,0]", "[100,100,100,100,10,100]"
    gipo(["fit", "--config", "bc.yaml", f"--data.logs={tmp_path / 'taught'}", f"--data.action_low={low}",
          f"--data.action_high={high}", "--trainer.max_epochs=1", "--data.rounds=1", "--data.batch=16",
          f"--trainer.default_root_dir={tmp_path / 'clone'}"])  # fmt: skip
    assert (tmp_path / "clone" / "checkpoints" / "last.ckpt").exists()
