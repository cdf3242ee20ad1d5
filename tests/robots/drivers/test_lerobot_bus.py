"""When it is worth asking a servo bus again, and which of two is at fault: without LeRobot, by devices that fail."""

import errno
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.drivers.lerobot import LeRobotRobot
from robots.drivers.lerobot_bus import ATTEMPTS, POLL, answer_within, connect, explained, let_go, release
from robots.drivers.lerobot_devices import normalised
from tests.robots.builders import make_spec


class Device:
    """A device whose first connections fail."""

    def __init__(self, *errors: Exception):
        self.errors, self.asked = list(errors), 0

    def connect(self, calibrate: bool) -> None:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)


LOST: Any = [
    ConnectionError("There is no status packet!"),
    RuntimeError("Some motors have no answer"),
    IndexError("list index out of range"),  # of the servos' library, where an answer is shorter than it takes it to be
]
FINAL: Any = [ConnectionError(errno.EACCES, "Permission denied"), ValueError("no such motor")]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_what_a_lost_packet_may_be_is_asked_for_again(error: Exception) -> None:
    device = Device(error)
    connect(device)
    assert device.asked == 2
    stubborn = Device(*[error] * ATTEMPTS)
    with pytest.raises(type(error)):
        connect(stubborn)
    assert stubborn.asked == ATTEMPTS


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_what_the_system_refuses_is_not(error: Exception) -> None:
    device = Device(error)
    with pytest.raises(type(error)):
        connect(device)
    assert device.asked == 1


class Bus:
    """A bus of two motors, of which none answers."""

    is_connected = True

    def __init__(self, port: str, mode: str):
        self.port = port
        self.motors = {"pan": SimpleNamespace(id=1, norm_mode=mode), "lift": SimpleNamespace(id=2, norm_mode=mode)}

    def disable_torque(self, motor: str, num_retry: int) -> None:
        raise ConnectionError("There is no status packet!")

    def disconnect(self, disable_torque: bool) -> None:
        raise ConnectionError("There is no status packet!")


@pytest.fixture
def pair(tmp_path: Path) -> SimpleNamespace:
    """Two arms as LeRobot's `bi_so_follower` has them; the plug of the right one is out."""
    (tmp_path / "ttyACM1").touch()
    left, right = (Bus(str(tmp_path / name), mode) for name, mode in (("ttyACM1", "degrees"),
                                                                       ("ttyACM10", "range_m100_100")))  # fmt: skip
    return SimpleNamespace(left_arm=SimpleNamespace(bus=left), right_arm=SimpleNamespace(bus=right))


def test_of_two_arms_each_has_units_of_its_own(pair: SimpleNamespace) -> None:
    found = [normalised(pair, name) for name in ("left_pan.pos", "right_pan.pos", "pan.pos", "left_x.pos", "right_")]
    assert found == ["degrees", "range_m100_100", "", "", ""]


def test_a_motor_of_two_arms_is_named_with_its_arm(pair: SimpleNamespace) -> None:
    assert release(pair) == ["left_pan", "left_lift", "right_pan", "right_lift"]


class Answering(Bus):
    """A bus whose motors do as they are told."""

    def __init__(self, port: str):
        super().__init__(port, "degrees")
        self.relaxed: list[str] = []

    def disable_torque(self, motor: str, num_retry: int = 0) -> None:
        self.relaxed.append(motor)

    def disconnect(self, disable_torque: bool) -> None:
        self.is_connected = False


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("keeps", [(True, True), (True, False), (False, False)])
def test_each_of_two_arms_keeps_its_torque_as_it_was_told(keeps: tuple[bool, bool], connected: bool) -> None:
    """Also where a camera is gone, so that LeRobot's own way to disconnect fails, or does nothing."""

    def disconnect() -> None:
        raise RuntimeError("the camera's frame did not arrive")

    sides = [
        SimpleNamespace(bus=Answering(f"/dev/{n}"), config=SimpleNamespace(disable_torque_on_disconnect=not kept))
        for n, kept in enumerate(keeps)
    ]
    device = SimpleNamespace(left_arm=sides[0], right_arm=sides[1], is_connected=connected, disconnect=disconnect)
    with pytest.raises(UserError, match=r"did not arrive$") if connected else nullcontext():
        let_go(device)
    assert [each.bus.relaxed for each in sides] == [[] if kept else ["pan", "lift"] for kept in keeps]
    assert not any(each.bus.is_connected for each in sides)


def test_motors_that_do_not_answer_are_named_where_a_part_of_the_device_is_gone(pair: SimpleNamespace) -> None:
    pair.is_connected = False
    with pytest.raises(UserError, match=r"^torque may still be on at left_pan, left_lift, right_pan, right_lift$"):
        let_go(pair)


class Port:
    """A port on which nothing comes; it keeps how long each answer was waited for."""

    tx_time_per_byte = 0.1  # ms

    def __init__(self) -> None:
        self.ser, self.waits = SimpleNamespace(timeout=0), []

    def setPacketTimeoutMillis(self, milliseconds: float) -> None:
        self.waits.append(milliseconds)

    def setPacketTimeout(self, size: int) -> None:
        self.setPacketTimeoutMillis(self.tx_time_per_byte * size + 50)


class Mute:
    """A bus as LeRobot's, with answers of eight bytes of which none comes."""

    def __init__(self) -> None:
        self.motors, self.port_handler = ["pan"], Port()

    def sync_read(self, data_name: str, num_retry: int = 0) -> None:
        for _ in range(1 + num_retry):
            self.port_handler.setPacketTimeout(8)


@pytest.mark.parametrize(("patience", "tries"), [(1, 3), (2, 6), (5, 15)])
def test_what_is_asked_in_vain_takes_as_long_as_was_allowed(patience: int, tries: int) -> None:
    """Of 60 ms each of three answers has 20, beside the time that its own bytes take."""
    arms = [SimpleNamespace(bus=Mute()), SimpleNamespace(bus=Mute())]
    answer_within(SimpleNamespace(left_arm=arms[0], right_arm=arms[1]), 0.06, patience)
    for arm in arms:
        arm.bus.sync_read("Present_Position")
        assert arm.bus.port_handler.waits == pytest.approx([0.8 + 20] * tries)
        assert arm.bus.port_handler.ser.timeout == POLL


@pytest.mark.parametrize(
    ("said", "told"),
    [("Could not connect on port '{left}'. Make sure", "{left} is no serial port"),
     ("Could not connect on port '{right}'. Make sure", "{right} is no serial port"),
     ("check failed on port '{right}': Missing motor IDs: - 2 (expected model: 777) Full expected",
      "these motors do not answer on {right}: 2 (lift);"),
     ("device reports readiness to read but returned no data (device disconnected?)", "{right} is gone")],
)  # fmt: skip
def test_of_two_ports_the_one_that_fails_is_named(pair: SimpleNamespace, said: str, told: str) -> None:
    ports = {"left": pair.left_arm.bus.port, "right": pair.right_arm.bus.port}
    assert explained(ConnectionError(said.format(**ports)), pair).startswith(told.format(**ports))


def test_answers_that_are_lost_while_it_connects_are_told(pair: SimpleNamespace) -> None:
    error = ConnectionError(f"Could not connect on port '{pair.right_arm.bus.port}'. Make sure")
    error.__cause__ = ConnectionError("Failed to read 'Firmware' on id_=3 after 1 tries. There is no status packet!")
    said = explained(error, pair)
    assert said == f"answers of the motors on {pair.right_arm.bus.port} are lost or damaged: see to their cables"


def test_what_is_not_there_and_is_no_port_is_not_taken_for_one(pair: SimpleNamespace) -> None:
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "scene")
    assert explained(missing, pair) == "FileNotFoundError: [Errno 2] No such file or directory: 'scene'"
    assert explained(UserError("no desk answers"), pair) == "no desk answers"


def test_a_plug_that_is_pulled_on_the_way_to_the_start_is_told_as_in_an_episode(pair: SimpleNamespace) -> None:
    def prepare(seed: int, stopped: Callable[[], bool]) -> None:
        raise OSError(errno.EIO, "Input/output error")

    spec = make_spec(action_names=("a",), action_units=("N",), action_low=(-1.0,), action_high=(1.0,),
                     action_rate=(None,), action_acceleration=(None,), action_hold=(0.0,))  # fmt: skip
    pair.observation_features = dict.fromkeys(spec.observation_names, float)
    pair.action_features, pair.prepare = {"a": float}, prepare
    with pytest.raises(UserError, match=r"^\S+ttyACM10 is gone: is its plug in\?$"):
        LeRobotRobot(pair, spec).prepare(0)
