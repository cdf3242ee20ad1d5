"""What the motors of a LeRobot device report of themselves, on a bus whose answers carry what they are told to."""

import types
from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.drivers.lerobot import LeRobotRobot
from robots.drivers.lerobot_faults import FaultWatch
from tests.robots.builders import make_spec

FEETECH, DYNAMIXEL = {"sts3215": {"Status": (65, 1)}}, {"xl330": {"Hardware_Error_Status": (70, 1)}}
OTHER: dict[str, Any] = {"other": {}}


class Handler:
    """The servos' own library, as far as it reads one answer of many."""

    def __init__(self) -> None:
        self.errors = {1: 0, 2: 0}
        self.result = 0

    def readRx(self, port: object, identity: int, length: int) -> tuple[list[int], int, int]:
        return [0] * length, self.result, self.errors[identity]


class Bus:
    """Has LeRobot's names.

    Args:
        table: control tables of its models, of which its two motors have the first.
    """

    port = "/dev/ttyACM0"

    def __init__(self, table: dict[str, Any]):
        model = next(iter(table))
        self.model_ctrl_table = table
        self.motors = {name: types.SimpleNamespace(id=number, model=model) for number, name in enumerate("ab", 1)}
        self.packet_handler = Handler()

    def read(self, times: int = 1, **errors: int) -> None:
        """Read both motors, as `sync_read` does; their answers have these errors from now on."""
        self.packet_handler.errors |= {self.motors[name].id: bits for name, bits in errors.items()}
        for _ in range(times):
            found = [self.packet_handler.readRx(None, each.id, 2)[0] for each in self.motors.values()]
            assert found == [[0, 0]] * 2


def device(*found: Bus) -> Any:
    """One arm, or what is made of several."""
    if len(found) == 1:
        return types.SimpleNamespace(bus=found[0])
    return types.SimpleNamespace(
        **{f"arm_{number}": types.SimpleNamespace(bus=bus) for number, bus in enumerate(found)}
    )


@pytest.mark.parametrize(
    ("table", "status", "said"),
    [(FEETECH, 4, "overheat"), (FEETECH, 32, "overload"), (FEETECH, 1, "voltage"), (FEETECH, 4 + 8, "overheat and "
      "overcurrent"), (DYNAMIXEL, 128 + 3, "hardware")],
)  # fmt: skip
def test_a_fault_in_two_answers_is_an_error_that_names_it_and_its_motor(
    table: dict[str, Any], status: int, said: str
) -> None:
    healthy, bus = Bus(FEETECH), Bus(table)
    watch = FaultWatch(device(healthy, bus))
    healthy.read(2)
    bus.read(b=status)
    watch.check()
    bus.read()
    with pytest.raises(UserError, match=rf"^motor b \(2\) on /dev/ttyACM0 reports {said}, and its torque may be off"):
        watch.check()


def test_what_is_in_one_answer_and_gone_in_the_next_is_none() -> None:
    bus = Bus(FEETECH)
    watch = FaultWatch(device(bus))
    for status in (1, 0, 4, 1, 32):
        bus.read(a=status)
        watch.check()
    bus.read(a=32)  # and once more
    with pytest.raises(UserError, match="reports overload,"):
        watch.check()


def test_an_answer_that_did_not_come_says_nothing() -> None:
    bus = Bus(FEETECH)
    watch = FaultWatch(device(bus))
    came, bus.packet_handler.result = bus.packet_handler.result, -6
    bus.read(3, a=255)
    watch.check()
    bus.packet_handler.result = came
    bus.read(2, a=4)
    with pytest.raises(UserError, match="reports overheat,"):
        watch.check()


@pytest.mark.parametrize(("table", "errors"), [(FEETECH, 64 + 16), (DYNAMIXEL, 127), (OTHER, 255)])
def test_bits_that_mean_nothing_are_no_fault(table: dict[str, Any], errors: int) -> None:
    bus = Bus(table)
    watch = FaultWatch(device(bus))
    bus.read(3, a=errors)
    watch.check()


def test_motors_without_such_bits_cost_nothing() -> None:
    bus = Bus(OTHER)
    FaultWatch(device(bus))
    assert bus.packet_handler.readRx.__func__ is Handler.readRx  # type: ignore[attr-defined]
    FaultWatch(types.SimpleNamespace()).check()


def test_what_is_tolerated_is_no_error_and_the_rest_is() -> None:
    bus = Bus(FEETECH)
    watch = FaultWatch(device(bus), ["overload"])
    bus.read(2, a=32)
    watch.check()
    bus.read(2, b=32 + 4)
    with pytest.raises(UserError, match=r"motor b .* reports overheat, "):
        watch.check()
    with pytest.raises(UserError, match=r"no fault 'heat'; they report encoder, hardware, overcurrent, overheat, "):
        FaultWatch(device(bus), ["heat"])


def test_a_robot_stops_at_the_reading_that_tells() -> None:
    spec, bus = make_spec(), Bus(FEETECH)

    def observe() -> dict[str, float]:
        bus.read()
        return dict.fromkeys(spec.observation_names, 0.0)

    arm = device(bus)
    arm.observation_features = dict.fromkeys(spec.observation_names, float)
    arm.action_features = dict.fromkeys(spec.action_names, float)
    arm.get_observation = observe
    robot = LeRobotRobot(arm, spec)
    robot.observe()
    bus.packet_handler.errors[2] = 4
    robot.observe()
    with pytest.raises(UserError, match=r"motor b .* reports overheat"):
        robot.observe()
