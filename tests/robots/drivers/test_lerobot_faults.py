"""What the motors of a LeRobot device report of themselves, on a bus that notes what it is asked."""

import types
from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.drivers.lerobot import LeRobotRobot
from robots.drivers.lerobot_faults import FaultWatch
from tests.robots.builders import make_spec

FEETECH, DYNAMIXEL = {"sts3215": {"Status": (65, 1)}}, {"xl330": {"Hardware_Error_Status": (70, 1)}}


class Bus:
    """Has LeRobot's names.

    Args:
        table: control tables of its models, of which its two motors have the first.
        options: more attributes.
    """

    port = "/dev/ttyACM0"

    def __init__(self, table: dict[str, Any], **options: Any):
        model = next(iter(table))
        self.model_ctrl_table = table
        self.motors = {name: types.SimpleNamespace(id=number, model=model) for number, name in enumerate("ab", 1)}
        self.status = dict.fromkeys(self.motors, 0)
        self.asked: list[tuple[str, str]] = []
        vars(self).update(options)

    def sync_read(self, register: str, motor: str, *, normalize: bool = True) -> dict[str, int]:
        assert not normalize
        self.asked.append((register, motor))
        return {motor: self.status[motor]}


def device(*found: Bus) -> Any:
    """One arm, or what is made of several."""
    if len(found) == 1:
        return types.SimpleNamespace(bus=found[0])
    return types.SimpleNamespace(
        **{f"arm_{number}": types.SimpleNamespace(bus=bus) for number, bus in enumerate(found)}
    )


def test_one_motor_is_asked_each_time_in_turn() -> None:
    bus, other = Bus(FEETECH), Bus(DYNAMIXEL)
    watch = FaultWatch(device(bus, other))
    for _ in range(6):
        watch.look()
    assert bus.asked == [("Status", "a"), ("Status", "b"), ("Status", "a"), ("Status", "b")]
    assert other.asked == [("Hardware_Error_Status", "a"), ("Hardware_Error_Status", "b")]


@pytest.mark.parametrize(
    ("table", "status", "said"),
    [(FEETECH, 4, "overheat"), (FEETECH, 32, "overload"), (FEETECH, 1, "voltage"), (FEETECH, 4 + 8, "overheat and "
      "overcurrent"), (DYNAMIXEL, 8, "encoder"), (DYNAMIXEL, 16 + 32, "shock and overload")],
)  # fmt: skip
def test_a_fault_is_an_error_that_names_it_and_its_motor(table: dict[str, Any], status: int, said: str) -> None:
    bus = Bus(table)
    watch = FaultWatch(device(bus))
    bus.status["b"] = status
    watch.look()
    with pytest.raises(UserError, match=rf"^motor b \(2\) on /dev/ttyACM0 reports {said}, and its torque may be off"):
        watch.look()


@pytest.mark.parametrize("bus", [
    Bus({"scs0009": {"Status": (65, 1)}}, protocol_version=1), Bus({"rs02": {"Position": (1, 1)}}), Bus({"other": {}}),
])  # fmt: skip
def test_motors_without_a_register_that_can_be_read_so_are_asked_nothing(bus: Bus) -> None:
    watch = FaultWatch(device(bus))
    watch.look()
    assert bus.asked == []


def test_a_device_without_buses_is_asked_nothing() -> None:
    FaultWatch(types.SimpleNamespace()).look()


def test_what_is_tolerated_is_no_error_and_the_rest_is() -> None:
    bus = Bus(FEETECH)
    watch = FaultWatch(device(bus), ["overload"])
    bus.status = {"a": 32, "b": 32 + 4}
    watch.look()
    with pytest.raises(UserError, match=r"motor b .* reports overheat, "):
        watch.look()
    with pytest.raises(UserError, match=r"no fault 'heat'; they report encoder, overcurrent, overheat, "):
        FaultWatch(device(bus), ["heat"])


def test_a_robot_looks_after_each_reading() -> None:
    spec, bus = make_spec(), Bus(FEETECH)
    arm = device(bus)
    arm.observation_features = dict.fromkeys(spec.observation_names, float)
    arm.action_features = dict.fromkeys(spec.action_names, float)
    arm.get_observation = lambda: dict.fromkeys(spec.observation_names, 0.0)
    robot = LeRobotRobot(arm, spec)
    robot.observe()
    bus.status["b"] = 4
    with pytest.raises(UserError, match=r"motor b .* reports overheat"):
        robot.observe()
    assert bus.asked == [("Status", "a"), ("Status", "b"), ("Status", "b")]


def test_what_is_reported_once_is_a_late_answer_to_something_else() -> None:
    bus = Bus(FEETECH)
    first: list[str] = []
    bus.sync_read = lambda register, motor, **_: {motor: 0 if motor in first else first.append(motor) or 4}  # type: ignore[method-assign,assignment]
    watch = FaultWatch(device(bus))
    for _ in range(4):
        watch.look()
    assert first == ["a", "b"]
