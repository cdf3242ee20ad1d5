"""From pushes of keys and sticks to a command: what a push does depends on what keeps the robot still."""

import time
from collections.abc import Callable

import numpy as np

from gipo.common.errors import UserError
from robots.base import Observation
from robots.spec import MEASURED, RobotSpec


class Pushes:
    """Commands of pushes in [−1, 1] of each action dimension.

    An action that is held by a number (a speed) is that number without a push, and a push leads from it to a bound. One
    that is held where it is measured (a position) stays where it was last pushed to, and is moved at a speed: no faster
    than the spec lets the robot move, which would go on long after the push.

    Args:
        spec: of the robot.
        strength: of a full push: the share of the way to the bound, or of the range in a second.
        clock: seconds.

    Raises:
        UserError: when the strength is not in (0, 1].
    """

    def __init__(self, spec: RobotSpec, strength: float, clock: Callable[[], float] = time.monotonic):
        if not 0 < strength <= 1:
            raise UserError(f"strength is {strength:g}; it must be above 0 and at most 1")
        self._spec, self._strength, self._clock = spec, strength, clock
        self._low, self._high = np.array(spec.action_low), np.array(spec.action_high)
        fastest = np.array([np.inf if rate is None else rate for rate in spec.action_rate])
        self._speed = np.minimum(strength * (self._high - self._low), fastest)  # of a full push, action units/s
        self._measured = np.array([hold == MEASURED for hold in spec.action_hold])
        self._target: np.ndarray | None = None
        self._moment = 0.0

    def begin(self) -> None:
        """Forget where positions were pushed to: others have moved the robot since."""
        self._target = None

    def command(self, pushes: np.ndarray, observation: Observation) -> np.ndarray:
        """[D] the command of `pushes` [D]; positions start from where the robot is held."""
        hold = self._spec.hold({}) if observation.hold is None else np.asarray(observation.hold, float)
        now = self._clock()
        seconds = 0.0 if self._target is None else now - self._moment
        target = hold if self._target is None else self._target
        self._moment = now
        moved = target + pushes * self._speed * seconds
        self._target = np.clip(moved, self._low, self._high)
        room = np.where(pushes > 0, self._high - hold, hold - self._low)
        return np.where(self._measured, self._target, hold + pushes * self._strength * room)
