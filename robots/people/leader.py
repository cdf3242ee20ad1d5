"""A leader arm or another LeRobot teleoperator, moved by hand."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from gipo.common.errors import UserError
from gipo.common.faults import described
from robots.base import Observation
from robots.drivers import lerobot_bus
from robots.drivers.lerobot_devices import check_units
from robots.people.keyboard import WordKeys
from robots.people.operator import Operator, Said
from robots.settings.annotations import build
from robots.spec import RobotSpec

# What a teleoperator with `get_teleop_events` says, by LeRobot's own names, of which the first that is said counts: its
# own devices call a failure an end of the episode, and nothing else.
EVENTS = {
    "success": Said(success=True),
    "failure": Said(success=False),
    "rerecord_episode": Said(discard=True),
    "terminate_episode": Said(success=False),
}

PATIENCE = 2  # periods in which answers are asked for: no tick waits for them


def teleoperator(kind: Any, name: str, spec: RobotSpec, fields: dict[str, Any]) -> "Teleoperator":
    """A LeRobot teleoperator, connected.

    Args:
        kind: its class.
        name: what it is called in messages.
        spec: of the robot.
        fields: of its configuration.

    Raises:
        UserError: when it refuses its configuration, does not connect, is not calibrated, or commands another robot or
            in other units; or it does not say who has the robot, and there is no keyboard to say it at.
    """
    device = _made(kind, name, spec, fields)
    hands = None if hasattr(device, "get_teleop_events") else WordKeys()  # refuses before there is a device to release
    try:
        _connect(device, name, spec)
    except BaseException:
        if hands is not None:
            hands.close()
        raise
    return Teleoperator(device, spec, hands)


def _made(kind: Any, name: str, spec: RobotSpec, fields: dict[str, Any]) -> Any:
    """The device, which is of this robot, and not connected."""
    try:
        device = kind(build(kind.config_class, fields, "--operator-set "))
        features = _action_names(device.action_features)
    except UserError:
        raise
    except Exception as error:  # the device's author raises anything
        raise UserError(f"{name} cannot be used: {described(error)}") from error
    if features != set(spec.action_names):
        mine = set(spec.action_names)
        raise UserError(
            f"{name} commands another robot: only it has {sorted(features - mine)}, "
            f"only the robot {sorted(mine - features)}"
        )
    try:
        check_units(spec, "spec", device)
    except UserError as error:
        raise UserError(f"{name} commands in other units: {error}") from error
    return device


def _action_names(features: Mapping[str, Any]) -> set[str]:
    """Names of what a device commands; those of LeRobot that move a hand say them as a data set does, with a shape."""
    named = features.get("names") if set(features) == {"dtype", "shape", "names"} else None
    return set(features if named is None else named)


def _connect(device: Any, name: str, spec: RobotSpec) -> None:
    try:
        lerobot_bus.connect(device)
        calibrated = getattr(device, "is_calibrated", True)
    except Exception as error:
        lerobot_bus.release(device)
        raise UserError(f"{name} cannot be used: {_reason(error, device)}") from error
    if not calibrated:
        lerobot_bus.release(device)
        raise UserError(f"{name} is not calibrated; calibrate it with LeRobot first")
    lerobot_bus.answer_within(device, spec.period_ns / 1e9, PATIENCE)


def _reason(error: Exception, device: Any) -> str:
    return lerobot_bus.explained(error, device) if lerobot_bus.buses(device) else described(error)


class Teleoperator(Operator):
    """Commands are the device's; who has the robot and how it goes is said by its own events, or at the keyboard.

    The device is read whether the person has the robot or not, so that one that hangs or is unplugged is noticed.

    Args:
        device: of LeRobot, connected.
        spec: whose action names are the device's.
        hands: says who has the robot where the device does not; closed with it.
    """

    def __init__(self, device: Any, spec: RobotSpec, hands: Operator | None):
        self.device, self._names, self._hands = device, spec.action_names, hands
        self._words: deque[Said] = deque()
        self._engaged = False
        self._closed = False

    def begin(self) -> None:
        """An episode begins, with the policy in charge."""
        self._words.clear()
        if self._hands is not None:
            self._hands.begin()

    def action(self, observation: Observation) -> np.ndarray:
        """[D] where the device is.

        Raises:
            UserError: when it does not say, asked again for answers that were lost.
        """
        try:
            found = self.device.get_action()
        except Exception as error:
            raise UserError(_reason(error, self.device)) from error
        if self._hands is not None:
            self._hands.action(observation)
        else:
            said = {getattr(key, "value", key): value for key, value in self.device.get_teleop_events().items()}
            self._engaged = bool(said.get("is_intervention"))
            self._words.extend([word for name, word in EVENTS.items() if said.get(name)][:1])
        return np.array([float(found[name]) for name in self._names])

    def engaged(self) -> bool:
        """Whether the person has the robot."""
        return self._engaged if self._hands is None else self._hands.engaged()

    def said(self) -> Said | None:
        """What the person has said."""
        if self._hands is not None:
            return self._hands.said()
        return self._words.popleft() if self._words else None

    def rest(self) -> None:
        """The episode is over."""
        if self._hands is not None:
            self._hands.rest()

    def close(self) -> None:
        """Disconnect the device."""
        if self._closed:
            return
        self._closed = True
        if self._hands is not None:
            self._hands.close()
        lerobot_bus.let_go(self.device)
