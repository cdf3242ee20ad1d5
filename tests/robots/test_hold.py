"""What keeps a robot where it is: said by the spec for every action, and what a stop of a LeRobot device sends."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.drivers.lerobot import LeRobotRobot
from robots.safety import start
from robots.spec import RobotSpec
from tests.robots.builders import make_spec
from tests.robots.fakes import die

NAMES = ("x.vel", "lift.pos")


class Base:
    """LeRobot's interface of a base on wheels with a lift: it reads its speeds under the names it takes them by."""

    is_connected = is_calibrated = True

    def __init__(self, readings: tuple[str, ...] = NAMES):
        self.observation_features, self.action_features = dict.fromkeys(readings, float), dict.fromkeys(NAMES, float)
        self.position = dict(zip(readings, (1.53, 20.0), strict=False))
        self.sent: list[dict[str, float]] = []

    def connect(self, calibrate: bool) -> None: ...

    def get_observation(self) -> dict[str, float]:
        return dict(self.position)

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append(action)
        self.position = dict(action)
        return action


def base_spec(hold: tuple[Any, Any] = (0.0, "measured"), readings: tuple[str, ...] = NAMES) -> RobotSpec:
    both = {f"{kind}_{what}": value for kind in ("observation", "action") for what, value in {
        "names": NAMES, "units": ("m/s", "mm"), "low": (-2.0, 0.0), "high": (2.0, 100.0)}.items()}  # fmt: skip
    none = (None, None)
    free = make_spec(**both, action_rate=none, action_acceleration=none, action_hold=hold)
    return replace(free, observation_names=readings)


def observed(device: Base) -> LeRobotRobot:
    robot = LeRobotRobot(device, base_spec())
    robot.prepare(0)
    np.testing.assert_array_equal(robot.observe().hold, [0.0, 20.0])
    return robot


def test_a_stop_sends_what_the_spec_holds_each_action_by() -> None:
    device = Base()
    robot = observed(device)
    robot.act(np.array([1.5, 30.0]))
    robot.observe()
    robot.stop("steps")
    robot.stop("again")
    assert device.sent == [{"x.vel": 1.5, "lift.pos": 30.0}, {"x.vel": 0.0, "lift.pos": 30.0}]


def test_a_spec_of_numbers_alone_holds_a_speed_by_its_number() -> None:
    device = Base(("x.vel",))
    device.action_features = {"x.vel": float}
    one = {f"{kind}_{what}": value for kind in ("observation", "action") for what, value in {
        "names": ("x.vel",), "units": ("m/s",), "low": (-2.0,), "high": (2.0,)}.items()}  # fmt: skip
    spec = make_spec(**one, action_rate=(None,), action_acceleration=(None,), action_hold=(0.0,))
    robot = LeRobotRobot(device, RobotSpec.from_json(spec.to_json()))
    robot.prepare(0)
    np.testing.assert_array_equal(robot.observe().hold, [0.0])
    robot.stop("steps")
    assert device.sent == [{"x.vel": 0.0}]


def test_a_stop_that_failed_is_sent_again() -> None:
    device = Base()
    robot = observed(device)
    send, device.send_action = device.send_action, die(OSError("port is gone"))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="port is gone"):
        robot.stop("steps")
    device.send_action = send  # type: ignore[method-assign]
    robot.stop("again")
    assert device.sent == [{"x.vel": 0.0, "lift.pos": 20.0}]


def test_a_command_that_overtakes_the_stop_is_held_again() -> None:
    device = Base()
    robot = observed(device)
    send = device.send_action

    def slow(action: dict[str, float]) -> dict[str, float]:
        device.send_action = send  # type: ignore[method-assign]
        robot.stop("the watchdog")
        return send(action)

    device.send_action = slow  # type: ignore[method-assign]
    robot.act(np.array([1.5, 30.0]))
    assert [sent["x.vel"] for sent in device.sent] == [0.0, 1.5, 0.0]


def test_a_hold_that_would_move_the_robot_is_refused() -> None:
    with pytest.raises(UserError, match=r"'lift.pos' is 0.0, and a stop would drive this position there"):
        LeRobotRobot(Base(), base_spec((0.0, 0.0)))
    readings = ("y.vel", "lift.pos")
    with pytest.raises(UserError, match=r"'x.vel' where it is measured, and the device does not measure it"):
        LeRobotRobot(Base(readings), base_spec(("measured", "measured"), readings))
    other = replace(base_spec((0.0, "measured")), observation_units=("m/s", "rad"))
    with pytest.raises(UserError, match=r"holds 'lift.pos' where it is measured, in rad, .* one unit"):
        LeRobotRobot(Base(), other)


def test_the_hold_is_said_by_the_spec() -> None:
    spec = make_spec(action_hold=("measured", 0.0, 0.25))
    np.testing.assert_array_equal(spec.hold({"x": 0.7, "y": 0.9}), [0.7, 0.0, 0.25])
    assert np.isnan(spec.hold({"y": 0.9})[0])
    assert RobotSpec.from_json(spec.to_json()) == spec
    told = r"the driver's observation has no `hold`: .*hold=spec\.hold\(\{'x': where it stands\}\)"
    with pytest.raises(UserError, match=told):
        start(spec, None)
    np.testing.assert_array_equal(start(make_spec(), None).command, [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "^the reading is a NoneType; LeRobot's are dicts from names to numbers$"),
        ({"x.vel": 1.0}, "^the reading lacks 'lift.pos'$"),
        ({"x.vel": 1.0, "lift.pos": None}, "^the reading of 'lift.pos' is None, no number$"),
        ({"x.vel": np.zeros(2), "lift.pos": 0.0}, r"^the reading of 'x.vel' is array\(\[0., 0.\]\), no number$"),
        ({"x.vel": 1.0, "lift.pos": 0.0}, "^the reading lacks the camera 'front'$"),
    ],
)
def test_a_reading_that_is_none_is_named(found: Any, message: str) -> None:
    device = Base()
    device.observation_features["front"] = (4, 6, 3)  # type: ignore[assignment]
    device.get_observation = lambda: found  # type: ignore[method-assign]
    robot = LeRobotRobot(device, base_spec())
    robot.prepare(0)
    with pytest.raises(UserError, match=message):
        robot.observe()


def test_an_answer_that_is_none_is_named() -> None:
    device = Base()
    robot = observed(device)
    device.send_action = lambda action: None  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(UserError, match="the device's answer is a NoneType"):
        robot.act(np.array([1.5, 30.0]))
