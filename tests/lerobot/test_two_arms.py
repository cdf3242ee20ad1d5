"""Two arms on two ports, as LeRobot's own bimanual follower: which of them is at fault, and in what units it is."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("lerobot", reason="the real LeRobot runs in an environment of its own: make lerobot")

from examples.so101.bus.port import Port
from gipo.common.errors import UserError
from robots.drivers.lerobot import LeRobotRobot
from robots.drivers.lerobot_devices import make_device
from robots.people.load import load_operator
from tests.examples.so101.line import line
from tests.lerobot.arm import SPEC, Desk

TWICE = {name: 2 * getattr(SPEC, name) for name in (
    "observation_units", "observation_low", "observation_high", "action_units", "action_low", "action_high",
    "action_rate", "action_acceleration", "action_hold",
)}  # fmt: skip
NAMES = tuple(f"{side}_{name}" for side in ("left", "right") for name in SPEC.action_names)
BOTH = replace(SPEC, observation_names=NAMES, action_names=NAMES, **TWICE)


class Pair:
    """The arm at the desk as the left one, and a right one."""

    def __init__(self, desk: Desk):
        self.desk, self.right = desk, line()
        self.port = Port(self.right, str(desk.folder / "right"))
        for side in ("left", "right"):
            shutil.copy("calibration/desk.json", f"calibration/desk_{side}.json")

    def robot(self, port: str = "", **options: bool) -> LeRobotRobot:
        ports = {"left": self.desk.port.path, "right": port or self.port.path}
        arms = {f"{side}_arm_config": {"port": path, **options} for side, path in ports.items()}
        found = {"id": "desk", "calibration_dir": str(self.desk.folder / "calibration"), **arms}
        Path("pair.yaml").write_text(yaml.safe_dump(found))
        return LeRobotRobot(make_device("bi_so_follower", "pair.yaml"), BOTH)

    @property
    def torque(self) -> list[int]:
        return self.desk.torque + [servo.get("Torque_Enable") for servo in self.right.servos]


@pytest.fixture
def pair(desk: Desk) -> Iterator[Pair]:
    pair = Pair(desk)
    yield pair
    pair.port.unplug()


def test_both_are_driven_and_let_go(pair: Pair) -> None:
    robot = pair.robot()
    robot.connect()
    robot.prepare(0)
    assert robot.act(robot.observe().hold) == pytest.approx(robot.observe().values, abs=0.2)
    assert pair.torque == [1] * 12
    robot.close()
    assert pair.torque == [0] * 12


def test_shares_of_a_range_are_not_taken_for_degrees(pair: Pair) -> None:
    with pytest.raises(UserError, match=r"'left_shoulder_pan.pos' in deg, and the device has it from -100 to 100"):
        pair.robot(use_degrees=False)


def _no_elbow(pair: Pair) -> None:
    pair.right.servos[2].lose_power()


def _uncalibrated(pair: Pair) -> None:
    Path("calibration/desk_right.json").unlink()


def test_a_leader_in_shares_does_not_command_an_arm_in_degrees() -> None:
    leader = "lerobot.teleoperators.so_leader:SO101Leader"
    with pytest.raises(UserError, match=r"commands in other units: the spec has 'shoulder_pan.pos' in deg"):
        load_operator(leader, SPEC, None, ["port=x", "id=desk", "use_degrees=false"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "port", "said"),
    [(_no_elbow, "", r"these motors do not answer on \S+/right: 3 \(elbow_flex\)"),
     (_uncalibrated, "", r"not calibrated \(looked for \S+/desk_right\.json\): .* --robot\.id=desk,"),
     (lambda _: None, "/dev/ttyACM99", "there is no port /dev/ttyACM99;")],
)  # fmt: skip
def test_the_arm_at_fault_is_named_and_neither_has_torque(
    pair: Pair, fault: Callable[[Pair], None], port: str, said: str
) -> None:
    for servo in (*pair.desk.servos.servos, *pair.right.servos):
        servo.set("Torque_Enable", 1)
    fault(pair)
    with pytest.raises(UserError, match=said):
        pair.robot(port).connect()
    assert sum(pair.torque[: 6 if port else 12]) == 0


def test_a_plug_that_is_pulled_is_named_with_its_motors(pair: Pair) -> None:
    robot = pair.robot()
    robot.connect()
    robot.prepare(0)
    pair.port.unplug()
    with pytest.raises(UserError, match=r"/right is gone: is its plug in\?"):
        robot.observe()
    with pytest.raises(UserError, match=r"torque may still be on at right_shoulder_pan, .*right_gripper$"):
        robot.close()
    assert pair.torque == [0] * 6 + [1] * 6
