"""LeRobot's own driver of an SO-101, unmodified, under `gipo-robot`: by its name and parser, with a bus that fails."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

from examples.so101.bus.faults import Faults
from examples.so101.bus.motors import FirstOrderMotor
from gipo.common.errors import UserError
from robots.cli import main
from robots.drivers.lerobot import LeRobotRobot
from robots.drivers.lerobot_devices import make_device
from robots.log import read_log
from robots.review.audit import audit, policies_in
from tests.lerobot.arm import JOINTS, RATE, SPEC, Desk
from tests.lerobot.patience import PATIENT

ARM = ["--robot", "lerobot", "--device", "so101_follower", "--config", "arm.yaml", "--spec", "arm.json"]


def run(artifact: Path, *options: str, steps: int = 30) -> int:
    given = ["run", "--policy", str(artifact), *ARM, "--set", "wait=false", "--episodes", "1", "--steps", str(steps)]
    return main([*given, *PATIENT, "--log", "logs", *options])


def robot(**fields: Any) -> LeRobotRobot:
    return LeRobotRobot(make_device("so101_follower", "arm.yaml", **fields), SPEC)


def test_an_episode_by_its_name(desk: Desk, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(artifact) == 0, capsys.readouterr().err
    (path,) = Path("logs").glob("*.mcap")
    found = read_log(path)
    assert len(found.episodes[0].transitions()["step"]) == 30
    assert max(audit([path], policies_in(artifact.parent)[0]).log_prob.values()) < 1e-5
    assert desk.torque == [0] * 6


def test_the_class_of_the_documentation(desk: Desk) -> None:
    kind = type(make_device("lerobot.robots.so_follower:SO101Follower", "arm.yaml"))
    assert kind is type(make_device("so101_follower", "arm.yaml"))


def test_nested_configuration_is_read_by_lerobots_own_parser(desk: Desk) -> None:
    front = {"type": "opencv", "index_or_path": 0, "width": 640, "height": 480, "fps": 30, "color_mode": "bgr"}
    desk.configure(cameras={"front": front}, max_relative_target=dict.fromkeys(JOINTS, 5.0))
    config = make_device("so101_follower", "arm.yaml", id="01", cameras={"front": {"fps": "15"}}).config
    camera = config.cameras["front"]
    assert (type(camera).__name__, camera.fps, camera.color_mode.value) == ("OpenCVCameraConfig", 15, "bgr")
    assert (config.id, config.calibration_dir) == ("01", desk.folder / "calibration")
    assert config.max_relative_target["gripper"] == 5.0


def test_kinds_of_cameras_are_known_to_a_robot_that_is_named_by_its_class(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They register when they are imported, which LeRobot's own commands do, and the module of the robot does not."""
    monkeypatch.setattr("lerobot.cameras.configs.CameraConfig._choice_registry", {})
    for name in [each for each in sys.modules if each.startswith("lerobot.cameras.opencv")]:
        monkeypatch.delitem(sys.modules, name)
    front = {"type": "opencv", "index_or_path": 0, "width": 640, "height": 480, "fps": 30}
    found = make_device("lerobot.robots.so_follower:SO101Follower", "arm.yaml", cameras={"front": front}).config
    assert type(found.cameras["front"]).__name__ == "OpenCVCameraConfig"


def test_a_file_of_lerobots_own_commands_holds_the_robot_under_its_name(desk: Desk) -> None:
    whole = {"robot": {"type": "so101_follower", "port": desk.port.path, "id": "desk"}, "dataset": {"fps": 30}}
    Path("record.yaml").write_text(yaml.safe_dump(whole))
    assert make_device("so101_follower", "record.yaml").config.id == "desk"
    with pytest.raises(UserError, match=r"record\.yaml is of a so101_follower, and --device says koch_follower"):
        make_device("koch_follower", "record.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cameras": {"front": {"type": "opencv", "index_or_path": 0, "fps": 30}}}, "Specifying 'width' is required"),
        ({"cameras": {"front": {"type": "opencv", "index_or_path": 0, "widht": 1}}}, "`widht` are not valid for"),
        ({"cameras": {"front": {"type": "opnecv"}}}, "Couldn't find a choice class for 'opnecv'"),
        ({"prot": "x"}, "The fields `prot` are not valid for"),
        ({"use_degrees": "perhaps"}, "Couldn't parse 'perhaps' into a bool"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_refused(desk: Desk, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"so101_follower refuses its configuration: .*{message}") as error:
        make_device("so101_follower", "arm.yaml", **fields)
    assert "\n" not in str(error.value)


def test_a_name_that_lerobot_does_not_have(desk: Desk) -> None:
    with pytest.raises(UserError, match="LeRobot has no robot 'so101_folower'; it has so101_follower"):
        make_device("so101_folower", "arm.yaml")


def _no_port(desk: Desk) -> None:
    desk.configure(port="/dev/ttyACM99")


def _no_serial_port(desk: Desk) -> None:
    desk.configure(port=str(desk.folder / "arm.json"))


def _a_motor_less(desk: Desk) -> None:
    desk.servos.servos[2].lose_power()


def _no_power(desk: Desk) -> None:
    for servo in desk.servos.servos:
        servo.lose_power()


def _another_model(desk: Desk) -> None:
    desk.servos.servos[1].set("Model_Number", 1284)


def _mute(desk: Desk) -> None:
    desk.port.faults.mute = True


def _uncalibrated(desk: Desk) -> None:
    desk.configure(id="another")


def _calibrated_otherwise(desk: Desk) -> None:
    desk.servos.servos[0].set("Max_Position_Limit", 3000)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (_no_port, "there is no port /dev/ttyACM99; lerobot-find-port"),
        (_no_serial_port, "arm.json is no serial port that can be opened"),
        (_a_motor_less, r"these motors do not answer on \S+arm: 3 \(elbow_flex\); see to their cables"),
        (_no_power, r"no motor answers on \S+arm: is the arm powered"),
        (_mute, r"no motor answers on \S+arm: is the arm powered"),
        (_another_model, r"of another model than the device's: .*2 \(shoulder_lift\): expected 777, found 1284"),
        (
            _uncalibrated,
            r"not calibrated \(looked for \S+another.json\): run lerobot-calibrate with --robot.id=another",
        ),
        (_calibrated_otherwise, "the motors hold another calibration than the file"),
    ],
)
def test_an_arm_that_cannot_be_connected(
    desk: Desk, artifact: Path, capsys: pytest.CaptureFixture[str], fault: Callable[[Desk], None], message: str
) -> None:
    for servo in desk.servos.servos:
        servo.set("Torque_Enable", 1)  # as a session left it that was killed
    fault(desk)
    assert run(artifact) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert re.search(message, said[0])
    if fault not in (_no_port, _no_serial_port, _mute):
        assert sum(desk.torque) == 0


def test_a_port_that_is_forbidden(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root nothing is forbidden, so that the system's answer is put in its place."""
    import serial

    def refuse(*_: Any, **__: Any) -> None:
        raise serial.SerialException(13, f"could not open port {desk.port.path}: Permission denied")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(UserError, match=r"no permission to open \S+arm: sudo usermod -aG dialout"):
        robot().connect()


class OneLost(Faults):
    """The answers whose numbers are named are lost."""

    def __init__(self, *numbers: int):
        super().__init__()
        self.numbers, self.count = set(numbers), 0

    def on_the_way(self, answer: bytes) -> bytes:
        self.count += 1
        return b"" if self.count in self.numbers else super().on_the_way(answer)


@pytest.mark.parametrize("number", [3, 20, 90])
def test_a_packet_lost_at_connect_is_asked_for_again(desk: Desk, number: int) -> None:
    desk.port.faults = OneLost(number)
    arm = robot()
    arm.connect()
    assert desk.torque == [1] * 6
    arm.close()
    assert desk.torque == [0] * 6


def test_a_packet_lost_in_a_tick_is_asked_for_again_within_the_period(desk: Desk) -> None:
    arm = robot()
    arm.connect()
    arm.prepare(0)
    desk.port.faults = OneLost(2)
    begun = time.monotonic()
    found = arm.observe()
    assert desk.port.faults.count > 6
    assert np.isfinite(found.values).all()
    assert time.monotonic() - begun >= 1 / RATE / 3  # the answer was waited for
    arm.close()


def allowed(arm: LeRobotRobot, patch: pytest.MonkeyPatch) -> list[float]:
    """Milliseconds in which an answer has to come, of every one that is waited for from now on."""
    port, waits = arm.device.bus.port_handler, []
    begin = port.setPacketTimeout

    def note(size: int) -> None:
        begin(size)
        waits.append(port.packet_timeout)

    patch.setattr(port, "setPacketTimeout", note)
    return waits


def test_a_bus_that_goes_on_losing_packets_is_a_stop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = robot()
    arm.connect()
    arm.prepare(0)
    waits = allowed(arm, monkeypatch)
    desk.port.faults.mute = True
    with pytest.raises(UserError, match=r"Failed to sync read 'Present_Position' .* after 3 tries") as error:
        arm.observe()
    assert len(waits) == 3
    assert sum(waits) < 2 * 1000 / RATE
    assert "\n" not in str(error.value)
    desk.port.faults.mute = False
    arm.stop("the test says so")
    assert desk.torque == [1] * 6  # an arm without torque falls
    arm.close()
    assert desk.torque == [0] * 6


def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_question(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All motors answer twice, as where it was asked again for an answer that was late, and none lost."""
    arm = robot()
    arm.connect()
    arm.prepare(0)
    once = desk.servos.answers
    monkeypatch.setattr(desk.servos, "answers", lambda asked: 2 * list(once(asked)))
    for position in (2048 + 4, 2048 + 32, 2048 + 33):  # its lower byte would be a fault of a motor
        for servo in desk.servos.servos:
            servo.motor = FirstOrderMotor(position)
        found = {round(value) for value in arm.observe().values[:5].tolist()}
        assert found == {round((position - 2047.5) * 360 / 4095)}
    monkeypatch.undo()
    arm.close()


def test_a_bus_may_be_silent_for_as_long_as_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = LeRobotRobot(make_device("so101_follower", "arm.yaml"), SPEC, patience=2)
    arm.connect()
    arm.prepare(0)
    waits = allowed(arm, monkeypatch)
    desk.port.faults.mute = True
    with pytest.raises(UserError, match="after 6 tries"):
        arm.observe()
    assert len(waits) == 6
    assert sum(waits) < 3 * 1000 / RATE
    desk.port.faults.mute = False
    arm.close()


def test_who_waits_for_an_answer_sleeps(desk: Desk) -> None:
    arm = robot()
    arm.connect()
    arm.prepare(0)
    desk.port.faults.mute = True
    begun, busy = time.monotonic(), time.thread_time()
    with pytest.raises(UserError, match="There is no status packet"):
        arm.observe()
    assert time.thread_time() - busy < 0.5 * (time.monotonic() - begun)
    desk.port.faults.mute = False
    arm.close()


def test_answers_that_are_later_than_a_tick_are_a_stop(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = robot()
    arm.connect()
    arm.prepare(0)
    waits = allowed(arm, monkeypatch)
    desk.port.faults.latency = 5.0
    with pytest.raises(UserError, match="There is no status packet"):
        arm.observe()
    assert len(waits) == 3
    desk.port.unplug()
    with pytest.raises(UserError, match="torque may still be on"):
        arm.close()


def test_motors_that_may_still_have_torque_are_named(desk: Desk) -> None:
    arm = robot()
    arm.connect()
    desk.servos.servos[0].lose_power()
    with pytest.raises(UserError, match="torque may still be on at shoulder_pan"):
        arm.close()
    assert desk.torque == [0] * 6  # of the others


def test_a_plug_that_is_pulled(desk: Desk) -> None:
    arm = robot()
    arm.connect()
    arm.prepare(0)
    desk.port.unplug()
    with pytest.raises(UserError, match=r"arm is gone: is its plug in\?"):
        arm.observe()
    with pytest.raises(UserError, match=r"is gone.*torque may still be on at shoulder_pan, shoulder_lift"):
        arm.close()
