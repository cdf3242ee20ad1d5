"""Operators by their names: ours, LeRobot's teleoperators, one's own, and what is wrong with a name."""

import os
import sys
import time
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.base import Observation
from robots.drivers import sim
from robots.drivers.sim_camera import make_seeing_spec
from robots.people.keyboard import WordKeys
from robots.people.leader import Teleoperator
from robots.people.load import load_operator
from robots.people.operator import Operator, Said
from tests.needs import needs_sim
from tests.robots.builders import make_spec
from tests.robots.people.people import FakeOperator

MANIFEST: Any = SimpleNamespace(task="reach-v3")
SEEN = Observation(np.zeros(5), 1)
HERE = __name__
JOINTS = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in range(6))
BIMANUAL: dict[str, Any] = {
    "action_names": JOINTS, "action_units": ("rad",) * 12, "action_low": (-1.0,) * 12, "action_high": (1.0,) * 12,
    "action_rate": (None,) * 12, "action_acceleration": (None,) * 12, "action_hold": (0.0,) * 12,
}  # fmt: skip


@dataclass
class LeaderConfig:
    port: str
    gain: float = 1.0


class Leader:
    """A LeRobot teleoperator, as far as it is used."""

    config_class = LeaderConfig
    name = "leader"
    made: ClassVar[list["Leader"]] = []

    def __init__(self, config: LeaderConfig):
        self.config = config
        self.made.append(self)
        self.is_calibrated = config.port != "uncalibrated"
        self.is_connected = False
        self.asked = 0
        self.action_features = dict.fromkeys(("x", "y", "wrist" if config.port == "other" else "grip"), float)
        self.said: dict[Any, bool] = {}

    def connect(self, calibrate: bool = True) -> None:
        self.asked += 1
        if self.config.port == "missing" or (self.config.port == "lossy" and self.asked == 1):
            raise ConnectionError("no such port")
        assert not calibrate
        self.is_connected = True

    def get_action(self) -> dict[str, float]:
        return {"grip": 0.5, "x": 0.1 * self.config.gain, "y": np.float32(-0.2)}

    def disconnect(self) -> None:
        self.is_connected = False


class LeaderInShares(Leader):
    """One of a robot with one joint, which it has from -100 to 100 of its range."""

    def __init__(self, config: LeaderConfig):
        super().__init__(config)
        self.action_features = {"pan.pos": float}
        self.bus = SimpleNamespace(motors={"pan": SimpleNamespace(norm_mode="range_m100_100")})


class TwoLeaders(Leader):
    """One for each arm of a robot of twelve joints."""

    def __init__(self, config: LeaderConfig):
        super().__init__(config)
        self.action_features = dict.fromkeys(JOINTS, float)

    def get_action(self) -> dict[str, float]:
        return {name: 0.01 * index for index, name in enumerate(JOINTS)}


class Events(Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    IS_INTERVENTION = "is_intervention"
    RERECORD_EPISODE = "rerecord_episode"
    TERMINATE_EPISODE = "terminate_episode"


class TellingLeader(Leader):
    """One that says itself who has the robot."""

    def get_teleop_events(self) -> dict[Any, bool]:
        found, self.said = self.said, {}
        return found


class HandLeader(TellingLeader):
    """One that moves a hand, as LeRobot's gamepad: it says its actions by their shape."""

    def __init__(self, config: LeaderConfig):
        super().__init__(config)
        names = {name: index for index, name in enumerate(self.action_features)}
        self.action_features = {"dtype": "float32", "shape": (3,), "names": names}


class NoOperator:
    def __init__(self, manifest: Any):
        self.manifest = manifest


class Mine(FakeOperator):
    def __init__(self, spec: Any, speed: float = 1.0):
        super().__init__()
        self.spec, self.speed = spec, speed


def refuse(speed: int) -> Operator:
    raise ValueError(f"not at {speed}")


def test_a_class_of_ones_own_is_given_what_it_asks_for() -> None:
    spec = make_spec()
    found = load_operator(f"{HERE}:Mine", spec, MANIFEST, ["speed=.5"])
    assert isinstance(found, Mine)
    assert (found.spec, found.speed) == (spec, 0.5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "joystick",
            [],
            "no operator 'joystick'.*; name keyboard, gamepad, scripted, or package.module:Class",
        ),
        (f"{HERE}:NoOperator", [], "gives a NoOperator; derive it from robots.people.operator.Operator"),
        (f"{HERE}:Mine", ["sped=1"], "--operator-set sped is no setting of Mine; its settings are: speed"),
        (f"{HERE}:Mine", ["speed"], "--operator-set 'speed' must be key=value"),
        (f"{HERE}:refuse", ["speed=3"], f"--operator {HERE}:refuse cannot be made: ValueError in refuse .*not at 3"),
        (f"{HERE}:Leader", [], "port"),
        (f"{HERE}:Leader", ["port=missing"], "cannot be used: ConnectionError in connect .*no such port"),
        (f"{HERE}:Leader", ["port=uncalibrated"], "is not calibrated; calibrate it with LeRobot first"),
        (f"{HERE}:Leader", ["port=other"], r"only it has \['wrist'\], only the robot \['grip'\]"),
    ],
)
@pytest.mark.usefixtures("terminal")
def test_what_is_wrong_is_one_line(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_operator(name, make_spec(), MANIFEST, settings)


def test_a_leader_in_other_units_than_the_robot_is_refused() -> None:
    spec = make_spec(
        action_names=("pan.pos",), action_units=("deg",), action_low=(-9.0,), action_high=(9.0,), action_rate=(None,),
        action_acceleration=(None,), action_hold=("measured",), observation_names=("pan.pos",),
        observation_units=("deg",), observation_low=(-9.0,), observation_high=(9.0,),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"LeaderInShares commands in other units: .* 'pan\.pos' in deg, .*-100 to 100"):
        load_operator(f"{HERE}:LeaderInShares", spec, MANIFEST, ["port=x"])


def test_a_leader_that_says_itself_who_has_the_robot() -> None:
    operator = load_operator(f"{HERE}:TellingLeader", make_spec(), MANIFEST, ["port=/dev/x", "gain=2"])
    assert isinstance(operator, Teleoperator)
    operator.begin()
    np.testing.assert_allclose(operator.action(SEEN), [0.2, -0.2, 0.5], rtol=1e-6)
    assert not operator.engaged()
    operator.device.said = {Events.IS_INTERVENTION: True, Events.SUCCESS: True, Events.TERMINATE_EPISODE: True}
    operator.action(SEEN)
    assert operator.engaged()
    assert (operator.said(), operator.said()) == (Said(success=True), None)
    operator.device.said = {"rerecord_episode": True}
    operator.action(SEEN)
    assert (operator.engaged(), operator.said()) == (False, Said(discard=True))
    operator.device.said = {Events.TERMINATE_EPISODE: True, Events.SUCCESS: False, Events.RERECORD_EPISODE: False}
    operator.action(SEEN)
    assert (operator.said(), operator.said()) == (Said(success=False), None), "how LeRobot's own say a failure"
    operator.rest()
    operator.close()
    operator.close()
    assert not operator.device.is_connected


def test_a_device_that_names_its_actions_as_a_data_set_does() -> None:
    operator = load_operator(f"{HERE}:HandLeader", make_spec(), MANIFEST, ["port=/dev/x"])
    np.testing.assert_allclose(operator.action(SEEN), [0.1, -0.2, 0.5], rtol=1e-6)
    operator.close()
    with pytest.raises(UserError, match=r"only it has \['wrist'\], only the robot \['grip'\]"):
        load_operator(f"{HERE}:HandLeader", make_spec(), MANIFEST, ["port=other"])


def test_a_leader_whose_answer_was_lost_is_asked_again() -> None:
    operator = load_operator(f"{HERE}:TellingLeader", make_spec(), MANIFEST, ["port=lossy"])
    assert isinstance(operator, Teleoperator)
    assert operator.device.asked == 2
    operator.close()


def test_another_leader_is_spoken_for_by_a_second_device() -> None:
    hands = FakeOperator((range(1, 3),), words={1: [Said(success=False)]})
    operator = Teleoperator(Leader(LeaderConfig("p")), make_spec(), hands)
    operator.begin()
    operator.action(SEEN)
    assert not operator.engaged()
    np.testing.assert_allclose(operator.action(Observation(np.zeros(5), 2)), [0.1, -0.2, 0.5], rtol=1e-6)
    assert (operator.engaged(), operator.said()) == (True, Said(success=False))
    operator.rest()
    operator.close()
    assert (hands.begun, hands.rested, hands.closed) == (1, 1, 1)


def test_two_leader_arms_are_spoken_for_at_a_keyboard_of_which_no_key_moves(
    terminal: int, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = load_operator(f"{HERE}:TwoLeaders", make_spec(**BIMANUAL), MANIFEST, ["port=/dev/x"])
    shown = capsys.readouterr().err
    assert "hand back" in shown
    assert "down / up" not in shown, "a key that is said to move, and does not"
    operator.begin()
    os.write(terminal, b" us")
    time.sleep(0.01)  # through the terminal
    np.testing.assert_allclose(operator.action(SEEN), 0.01 * np.arange(12))
    assert (operator.engaged(), operator.said(), operator.said()) == (True, Said(success=True), None)
    operator.close()


@pytest.mark.parametrize("port", ["missing", "uncalibrated"])
def test_a_refused_leader_leaves_neither_a_device_nor_a_keyboard(
    port: str, terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[WordKeys] = []
    monkeypatch.setattr(WordKeys, "close", lambda self: closed.append(self) or self._terminal.close())
    with pytest.raises(UserError):
        load_operator(f"{HERE}:Leader", make_spec(), MANIFEST, [f"port={port}"])
    assert len(closed) == 1
    assert not Leader.made[-1].is_connected
    with open(os.devnull) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UserError, match="a keyboard needs a terminal"):
            load_operator(f"{HERE}:Leader", make_spec(), MANIFEST, ["port=/dev/x"])
    assert not Leader.made[-1].is_connected


def seen(tick: int, reward: float, success: bool = False) -> Observation:
    return Observation(np.r_[np.zeros(36), 0.1, 0.8, 0.2], tick, reward=reward, success=success)


@needs_sim
def test_the_scripted_person_helps_where_progress_stalls() -> None:
    settings = ["patience=5", "help=8", "linger=2", "verdict=true"]
    person = load_operator("scripted", sim.make_spec(), MANIFEST, settings)
    person.begin()
    engaged = []
    for tick in range(60):  # rises for 20 steps, then stands still
        shown = seen(tick // 2, min(tick, 20) * 0.1)  # every other reading was lost, and repeats the time before it
        for _ in range(3):  # shown again and again until there is another
            action = person.action(shown)
            engaged.append(person.engaged()) if _ == 2 else None
        assert (np.abs(action) <= 1).all()
    first = engaged.index(True)
    assert 20 < first < 30
    assert engaged[first : first + 8] == [True] * 8, "helps for a while"
    assert engaged[first + 8 : first + 17] == [False] * 9, "and looks on again"
    assert person.said() is None
    person.action(seen(60, 2.0, success=True))
    assert (person.said(), person.said()) == (Said(success=True), None)
    for tick in range(61, 100):
        person.action(seen(tick, 2.0))
    assert not person.engaged(), "whoever has seen it done helps no more"


@needs_sim
def test_a_task_without_a_script_is_refused() -> None:
    with pytest.raises(UserError, match="no scripted operator for 'Pendulum-v1'; name a task: --operator-set task="):
        load_operator("scripted", sim.make_spec(), SimpleNamespace(task="Pendulum-v1"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="must be at least 1"):
        load_operator("scripted", sim.make_spec(), MANIFEST, ["patience=0"])


def test_a_script_is_refused_where_the_robot_does_not_say_what_it_goes_by() -> None:
    seeing = SimpleNamespace(task="camera:reach-v3")  # the task is one of MetaWorld's, its state is not seen
    with pytest.raises(UserError, match=r"MetaWorld's 39 observations and commands 4 actions, 'sim' has 4 and 4; name"):
        load_operator("scripted", make_seeing_spec(), seeing, ["task=reach-v3"])  # type: ignore[arg-type]
