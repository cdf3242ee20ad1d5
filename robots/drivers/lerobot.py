"""Any LeRobot robot: `--robot lerobot --device so101_follower --config so101.yaml --spec arm.json`.

LeRobot names its readings and motors but not their safe ranges, so those come from a spec file; the names must be the
same on both sides. Nothing of LeRobot is imported before the robot is made.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.common.reading import read_text
from robots.base import Observation
from robots.drivers import lerobot_bus
from robots.drivers.lerobot_devices import check_units, find_device, make_device
from robots.drivers.lerobot_faults import FaultWatch
from robots.session import prompt
from robots.spec import MEASURED, RobotSpec

MOST_PATIENT = 10  # periods; at the end every motor is asked, and a session does not wait longer than five seconds


def robot(
    device: str = "",
    spec: str = "",
    wait: bool = True,
    config: str = "",
    tolerate: str = "",
    patience: int = 1,
    **fields: Any,
) -> "LeRobotRobot":
    """A LeRobot robot, named by its class and configured by its fields.

    Args:
        device: LeRobot's name of a robot, `so101_follower`, or `package.module:Class` of a `lerobot.robots.Robot`.
        spec: file with a `RobotSpec` as JSON.
        wait: let a person place the scene before each episode, and press Enter.
        config: file with the device's configuration, JSON or YAML, as LeRobot's own commands take it; `fields` come on
            top of it.
        tolerate: what a motor may report without being a reason to stop, with commas between: a gripper that holds
            something for long reports an `overload`.
        patience: periods, 1 to 10, in which a bus may be silent before that is a stop; more than one goes with as long
            a `--deadline` and `--max-age`.
        fields: of the device's configuration, e.g. `port=/dev/ttyACM0`, `cameras.front.type=opencv`.
    """
    if not device:
        raise UserError("--robot lerobot needs --device: LeRobot's name of a robot, or package.module:Class")
    if not spec:
        raise UserError("--robot lerobot needs --spec: the arm's limits, which gipo-robot spec begins")
    find_device(device)  # of two mistakes the first one is told
    limits = RobotSpec.from_json(read_text(spec))
    tolerated = tuple(filter(None, map(str.strip, tolerate.split(","))))
    return LeRobotRobot(make_device(device, config, **fields), limits, wait, tolerated, patience)


def readings_of(device: Any) -> set[str]:
    """Names of what a LeRobot device measures in numbers; its other features are images of cameras."""
    return {name for name, kind in device.observation_features.items() if not isinstance(kind, tuple)}


def differences(named: RobotSpec | Manifest, side: str, device: Any) -> dict[str, str]:
    """`observation` and `action`, where the names of a spec or policy are not the device's: which only one side has."""
    found = {}
    for what, mine, theirs in (
        ("observation", set(named.observation_names), readings_of(device)),
        ("action", set(named.action_names), set(device.action_features)),
    ):
        if mine != theirs:
            found[what] = f"only in the {side} {sorted(mine - theirs)}, only in the device {sorted(theirs - mine)}"
    return found


class LeRobotRobot:
    """A LeRobot device behind the robot's interface.

    Readings that are numbers become the observation, images go to the log. LeRobot stamps nothing, so a reading is as
    old as the call that asked for it. What holds each motor still is said by the spec, by the kind of its command.

    Args:
        device: with `observation_features`, `action_features`, `connect`, `get_observation`, `send_action`,
            `disconnect`.
        spec: whose names are the device's.
        wait: ask for Enter before each episode.
        tolerated: faults that motors may report, of `lerobot_faults.FAULTS`; every other one is a stop.
        patience: periods in which an answer that does not come is asked for again, three times each.

    Raises:
        UserError: when names or units differ, there is no such fault, the patience is none, or the spec holds a motor
            by what the device does not measure, or a position by a number.
    """

    def __init__(
        self, device: Any, spec: RobotSpec, wait: bool = False, tolerated: tuple[str, ...] = (), patience: int = 1
    ):
        if not 1 <= patience <= MOST_PATIENT:
            raise UserError(f"--set patience is {patience}; it must be a number of periods from 1 to {MOST_PATIENT}")
        self.device, self.spec, self._patience = device, spec, patience
        self._wait = wait
        self._faults = FaultWatch(device, tolerated)
        self._bus = threading.Lock()  # a bus carries one packet at a time, and a stop may come from any thread
        self._stopped, self._held = True, False
        self._measured: dict[str, float] = {}
        self._cameras = sorted(set(device.observation_features) - readings_of(device))
        for what, difference in differences(spec, "spec", device).items():
            raise UserError(f"the spec's {what} names differ from the device's: {difference}")
        check_units(spec, "spec", device)
        _check_hold(spec, readings_of(device))

    def connect(self) -> None:
        """Open the device; nothing moves, so an uncalibrated one is refused."""
        if self._wait and not prompt.attended():
            raise UserError(
                "a person is to place the scene before each episode, and there is no terminal to ask at; "
                "if nobody has to, say --set wait=false"
            )
        try:
            lerobot_bus.connect(self.device)
            uncalibrated = "" if getattr(self.device, "is_calibrated", True) else _uncalibrated(self.device)
        except Exception as error:  # the driver's author raises anything
            lerobot_bus.release(self.device)
            raise UserError(f"cannot connect: {lerobot_bus.explained(error, self.device)}") from error
        if uncalibrated:
            lerobot_bus.release(self.device)
            raise UserError(uncalibrated)
        lerobot_bus.answer_within(self.device, self.spec.period_ns / 1e9, self._patience)

    def prepare(self, seed: int) -> None:
        """Let a device of one's own that has a `prepare(seed, stopped)` come to its start; wait for who places it.

        `stopped()` is to be asked before every command, and nothing sent once it is true.
        """
        self._measured = {}
        self._stopped, self._held = False, False
        if hasattr(self.device, "prepare"):  # none of LeRobot's own has
            # The bus is its own until it is done, or sees that it is stopped. A stop does not wait for that for ever.
            try:
                with self._bus:
                    self._explain(lambda: self.device.prepare(seed, lambda: self._stopped))
            finally:
                self._hold_again()
        if self._wait and prompt.ask("\nPlace the scene, then press Enter: ", lambda: self._stopped) is None:
            raise UserError("nobody has placed the scene")

    def observe(self) -> Observation:
        """Read every sensor and camera of the device; a motor that reports a fault is an error."""
        asked_ns = time.monotonic_ns()
        found = self._ask(self._read)
        values = _vector(found, self.spec.observation_names, "the reading")
        self._measured = dict(zip(self.spec.observation_names, values.tolist(), strict=True))
        if missing := [name for name in self._cameras if name not in found]:
            raise UserError(f"the reading lacks the camera {missing[0]!r}")
        images = {name: np.asarray(found[name]) for name in self._cameras}
        return Observation(values, asked_ns, self.spec.hold(self._measured), images=images)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Send every motor its target; LeRobot answers with what it really sent."""
        if self._stopped:
            raise UserError("the robot is stopped")
        sent = self._send(action)
        self._hold_again()
        return _vector(sent, self.spec.action_names, "the device's answer")

    def stop(self, reason: str) -> None:
        """Send what the spec holds it by. Power stays on: an arm without torque falls."""
        self._stopped = True
        hold = self.spec.hold(self._measured)
        # Positions that were never read were never commanded either, but by a `prepare`, which has ended by itself.
        if not self._held and np.isfinite(hold).all():
            self._send(hold)
            self._held = True

    def close(self) -> None:
        """Disconnect; LeRobot's default then switches the motors off, so support an arm that can fall.

        Raises:
            UserError: when it fails, naming the motors that may still have torque.
        """
        self._stopped = True
        lerobot_bus.let_go(self.device)

    def _hold_again(self) -> None:
        """Hold a device that was stopped meanwhile: what was sent then may have come after the command that holds."""
        if self._stopped:
            self._held = False
            self.stop("a command was on its way")

    def _read(self) -> Any:
        found = self.device.get_observation()
        self._faults.check()
        return found

    def _send(self, command: np.ndarray) -> Any:
        values = dict(zip(self.spec.action_names, command.tolist(), strict=True))
        return self._ask(lambda: self.device.send_action(values))

    def _ask(self, method: Callable[[], Any]) -> Any:
        # Not for ever: a call that hangs must not keep a stop from trying.
        alone = self._bus.acquire(timeout=2 * self.spec.period_ns / 1e9)
        try:
            return self._explain(method)
        finally:
            if alone:
                self._bus.release()

    def _explain(self, method: Callable[[], Any]) -> Any:
        try:
            return method()
        except Exception as error:  # the driver's author raises anything
            if isinstance(error, UserError) or not lerobot_bus.buses(self.device):
                raise
            raise UserError(lerobot_bus.explained(error, self.device)) from error


def _uncalibrated(device: Any) -> str:
    """What is said of a connected device that is not calibrated, with the files of those of its arms that are not."""
    parts = [part for part in lerobot_bus.arms(device).values() if not getattr(part, "is_calibrated", True)] or [device]
    files = [str(part.calibration_fpath) for part in parts if hasattr(part, "calibration_fpath")]
    where = f" (looked for {' and '.join(files)})" if files else ""
    return (
        f"the robot is not calibrated{where}: run lerobot-calibrate with --robot.id={getattr(device, 'id', None)}, and "
        "give that id here, or the motors hold another calibration than the file"
    )


def _check_hold(spec: RobotSpec, readings: set[str]) -> None:
    read = dict(zip(spec.observation_names, spec.observation_units, strict=True))
    told = dict(zip(spec.action_names, spec.action_units, strict=True))
    for name in spec.measured_hold:
        if name not in readings:
            raise UserError(f"the spec holds {name!r} where it is measured, and the device does not measure it")
        if read[name] != told[name]:
            raise UserError(
                f"the spec holds {name!r} where it is measured, in {read[name]}, and commands it in {told[name]}: a "
                "stop would send the one for the other; the two must have one unit"
            )
    for name, hold in zip(spec.action_names, spec.action_hold, strict=True):
        # LeRobot's own convention. Sent as a stop, a number would move it there.
        if name.endswith(".pos") and hold != MEASURED:
            raise UserError(
                f"spec.action_hold of {name!r} is {hold}, and a stop would drive this position there; "
                f'write "{MEASURED}", which holds it where it stands'
            )


def _vector(found: Any, names: tuple[str, ...], what: str) -> np.ndarray:
    if not isinstance(found, Mapping):
        raise UserError(f"{what} is a {type(found).__name__}; LeRobot's are dicts from names to numbers")
    values = []
    for name in names:
        if name not in found:
            raise UserError(f"{what} lacks {name!r}")
        try:
            values.append(float(found[name]))
        except (TypeError, ValueError) as error:
            raise UserError(f"{what} of {name!r} is {found[name]!r:.60}, no number") from error
    return np.array(values)
