"""Any LeRobot robot: `--robot lerobot --set device=lerobot.robots.so101_follower:SO101Follower --set spec=arm.json`.

LeRobot names its readings and motors but not their safe ranges, so those come from a spec file; the names must be the
same on both sides. Nothing of LeRobot is imported before the robot is made.
"""

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from robots.base import Observation
from robots.errors import RobotError
from robots.spec import RobotSpec


def robot(device: str, spec: str, wait: bool = True, **config: Any) -> "LeRobotRobot":
    """A LeRobot robot by its class.

    Args:
        device: `package.module:Class` of a `lerobot.robots.Robot`.
        spec: file with a `RobotSpec` as JSON.
        wait: let a person place the scene before each episode, and press Enter.
        config: fields of the device's configuration, e.g. `port=/dev/ttyACM0`.
    """
    module, _, name = device.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RobotError(f"there is no LeRobot device {device!r} ({error}); install lerobot beside gipo") from error
    try:
        text = Path(spec).read_text(encoding="utf-8")
    except OSError as error:
        raise RobotError(f"cannot read the spec {spec}: {error.strerror or error}") from error
    try:
        made = kind(kind.config_class(**config))
    except TypeError as error:
        raise RobotError(f"{name} does not take this configuration: {error}") from error
    return LeRobotRobot(made, RobotSpec.from_json(text), wait)


class LeRobotRobot:
    """LeRobot's `Robot` behind ours.

    Readings that are numbers become the observation, images go to the log. LeRobot stamps nothing, so a reading is as
    old as the call that asked for it. Where every motor's name is also a reading, holding still means repeating it.

    Args:
        device: with `observation_features`, `action_features`, `connect`, `get_observation`, `send_action`,
            `disconnect`.
        spec: whose names are the device's.
        wait: ask for Enter before each episode.

    Raises:
        RobotError: when names differ.
    """

    def __init__(self, device: Any, spec: RobotSpec, wait: bool = False):
        self.device, self.spec = device, spec
        self._wait = wait
        self._stopped = True
        self._hold: np.ndarray | None = None
        readings = {name for name, kind in device.observation_features.items() if not isinstance(kind, tuple)}
        self._cameras = sorted(set(device.observation_features) - readings)
        for what, mine, theirs in (
            ("observation", set(spec.observation_names), readings),
            ("action", set(spec.action_names), set(device.action_features)),
        ):
            if mine != theirs:
                raise RobotError(
                    f"the spec's {what} names differ from the device's: only in the spec {sorted(mine - theirs)}, "
                    f"only in the device {sorted(theirs - mine)}"
                )
        self._holds = set(spec.action_names) <= readings

    def connect(self) -> None:
        """Open the device; nothing moves, so an uncalibrated one is refused."""
        self.device.connect(calibrate=False)
        if not getattr(self.device, "is_calibrated", True):
            self.device.disconnect()
            raise RobotError("the robot is not calibrated; calibrate it with LeRobot first")

    def prepare(self, seed: int) -> None:
        """Wait for the person who places the scene."""
        if self._wait and sys.stdin.isatty():
            input("\nPlace the scene, then press Enter: ")
        self._stopped = False

    def observe(self) -> Observation:
        """Read every sensor."""
        asked_ns = time.monotonic_ns()
        found = self.device.get_observation()
        values = _vector(found, self.spec.observation_names, "the reading")
        if self._holds:
            self._hold = _vector(found, self.spec.action_names, "the reading")
        images = {name: np.asarray(found[name]) for name in self._cameras if name in found}
        return Observation(values, asked_ns, self._hold, images=images)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Send every motor its target; LeRobot answers with what it really sent."""
        if self._stopped:
            raise RobotError("the robot is stopped")
        sent = self.device.send_action(dict(zip(self.spec.action_names, action.tolist(), strict=True)))
        return _vector(sent, self.spec.action_names, "the device's answer")

    def stop(self, reason: str) -> None:
        """Hold where it stands. Power stays on: an arm without torque falls."""
        if self._stopped:
            return
        self._stopped = True
        hold = self._hold if self._holds else np.array(self.spec.action_hold)
        if hold is not None and np.isfinite(hold).all():
            self.device.send_action(dict(zip(self.spec.action_names, hold.tolist(), strict=True)))

    def close(self) -> None:
        """Disconnect; LeRobot's default then switches the motors off, so support an arm that can fall."""
        self._stopped = True
        if getattr(self.device, "is_connected", True):
            self.device.disconnect()


def _vector(found: Any, names: tuple[str, ...], what: str) -> np.ndarray:
    missing = [name for name in names if name not in found]
    if missing:
        raise RobotError(f"{what} lacks {missing[0]!r}")
    return np.array([float(found[name]) for name in names])
