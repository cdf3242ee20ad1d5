"""A person with a gamepad, read through evdev (extra `gamepad`; Linux)."""

import errno
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from gipo.common.errors import UserError
from gipo.common.extras import install
from robots.base import Observation
from robots.people.operator import Operator, Said
from robots.people.pushes import Pushes
from robots.spec import RobotSpec

# For each action dimension in turn: name of its axis, and which way is up. Sticks point down where evdev counts up.
AXES = (
    ("ABS_X", 1), ("ABS_Y", -1), ("ABS_RY", -1), ("ABS_RX", 1), ("ABS_HAT0X", 1), ("ABS_HAT0Y", -1),
)  # fmt: skip
TAKE = "BTN_TR"  # the right shoulder, while it is held
WORDS = {
    "BTN_SOUTH": Said(success=True),
    "BTN_EAST": Said(success=False),
    "BTN_NORTH": Said(reward=1.0),
    "BTN_WEST": Said(reward=1.0),  # the kernel's driver for Xbox pads has the two the other way round
    "BTN_SELECT": Said(discard=True),
}
DEAD_ZONE = 0.1  # of an axis: sticks do not come back to their middle


def gamepad(spec: RobotSpec, device: str = "", strength: float = 1.0, silence: float = 1.0) -> "Gamepad":
    """The gamepad at a device file.

    Args:
        spec: of the robot.
        device: such as `/dev/input/event5`; the first that has sticks and buttons unless given.
        strength: of a stick: the share of the way to the bound of a speed, or of the range of a position in a second.
        silence: seconds after which a stick that is held out without the least move counts as one of a gamepad out of
            reach, and holds the robot until it moves; inf for never.

    Raises:
        UserError: when evdev is not installed, or there is no such device.
    """
    try:
        import evdev
    except ModuleNotFoundError as error:
        raise UserError(f"a gamepad needs evdev: {install('gamepad')}") from error
    for path in [device] if device else evdev.list_devices():
        try:
            found = evdev.InputDevice(path)
        except OSError as error:
            if device:
                raise UserError(f"the gamepad {path} cannot be opened: {error.strerror or error}") from error
            continue  # a device of somebody else's
        with ExitStack() as stack:
            stack.callback(found.close)
            if getattr(evdev.ecodes, TAKE) in found.capabilities().get(evdev.ecodes.EV_KEY, []):
                made = Gamepad(found, spec, strength, silence)
                stack.pop_all()
                return made
    what = f"{device} is no gamepad" if device else "there is no gamepad that may be read"
    raise UserError(f"{what}; name one with --operator-set device=/dev/input/eventN")


class Gamepad(Operator):
    """The right shoulder has the robot while it is held, sticks move it, and buttons say how it goes.

    South is success, east failure, north and west a reward of 1, select discards the episode. The kernel tells what
    changes and nothing else: a gamepad whose batteries are empty looks like one whose sticks are held quite still.

    Args:
        device: an `evdev.InputDevice`.
        spec: of the robot.
        strength: as `gamepad` has it.
        silence: as `gamepad` has it.
        clock: seconds.

    Raises:
        UserError: when the silence is not above 0, or the robot has more dimensions than the gamepad axes.
    """

    def __init__(
        self,
        device: Any,
        spec: RobotSpec,
        strength: float = 1.0,
        silence: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        from evdev import ecodes

        if not silence > 0:
            raise UserError(
                f"silence is {silence:g}; it must be above 0, inf for a gamepad that may be silent for ever"
            )
        self._silence, self._clock, self._heard = silence, clock, clock()

        axes = [(getattr(ecodes, name), sign) for name, sign in AXES[: spec.action_size]]
        known = {code for code, _ in device.capabilities().get(ecodes.EV_ABS, [])}
        if spec.action_size > len(AXES) or not known.issuperset(code for code, _ in axes):
            raise UserError(f"the gamepad has too few axes for the {spec.action_size} action dimensions of {spec.name}")
        self._codes, self._device, self._pushes = ecodes, device, Pushes(spec, strength, clock)
        self._signs = np.array([sign for _, sign in axes], float)
        self._index = {code: index for index, (code, _) in enumerate(axes)}
        self._words: deque[Said] = deque()
        self._said = {getattr(ecodes, name): word for name, word in WORDS.items()}
        self._take = getattr(ecodes, TAKE)
        self._look()

    def begin(self) -> None:
        """Look where sticks and buttons stand: what was said between episodes is not of this one."""
        self._read()
        self._look()
        self._words.clear()
        self._heard = self._clock()

    def action(self, observation: Observation) -> np.ndarray | None:
        """[D] what the sticks command; None of sticks that are held out and have been silent for too long."""
        self._read()
        silent = self._clock() - self._heard > self._silence and (np.abs(self._sticks) > DEAD_ZONE).any()
        if silent or not self._engaged:
            self._pushes.begin()
        if silent:
            return None
        outside = np.abs(self._sticks) - DEAD_ZONE
        pushes = np.sign(self._sticks) * np.maximum(outside, 0.0) / (1 - DEAD_ZONE) * self._signs
        return self._pushes.command(pushes, observation)

    def engaged(self) -> bool:
        """Whether the right shoulder is held."""
        return self._engaged

    def said(self) -> Said | None:
        """What the buttons say."""
        return self._words.popleft() if self._words else None

    def close(self) -> None:
        """Release the device."""
        self._device.close()

    def _look(self) -> None:
        """Take the state of every axis and button as it is."""
        self._ranges = {code: self._device.absinfo(code) for code in self._index}
        self._sticks = np.array([self._share(code, info.value) for code, info in self._ranges.items()])
        self._engaged = self._take in self._device.active_keys()

    def _read(self) -> None:
        """Take what has happened since.

        Raises:
            OSError: when the gamepad is unplugged.
        """
        while True:
            try:
                events = list(self._device.read())
            except BlockingIOError:  # nothing more
                return
            if not events:
                raise OSError(errno.ENODEV, "the gamepad has gone")
            self._heard = self._clock()
            for event in events:
                self._take_in(event)

    def _take_in(self, event: Any) -> None:
        codes = self._codes
        if event.type == codes.EV_SYN and event.code == codes.SYN_DROPPED:
            self._look()  # the kernel's queue was full, and what it held is lost
        elif event.type == codes.EV_ABS and event.code in self._index:
            self._sticks[self._index[event.code]] = self._share(event.code, event.value)
        elif event.type == codes.EV_KEY and event.code == self._take:
            self._engaged = bool(event.value)
        elif event.type == codes.EV_KEY and event.value == 1 and event.code in self._said:
            self._words.append(self._said[event.code])

    def _share(self, code: int, value: int) -> float:
        """Where an axis stands, from −1 to 1."""
        low, high = self._ranges[code].min, self._ranges[code].max
        return 2 * (value - low) / max(high - low, 1) - 1
