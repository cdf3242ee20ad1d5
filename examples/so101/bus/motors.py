"""What a servo turns: a motor, told where to be and whether it has torque, and asked where it is."""

import math
import time
from collections.abc import Callable
from typing import Protocol


class Motor(Protocol):
    """A motor behind a servo, in steps of its encoder, 4096 a turn."""

    def position(self) -> float:
        """Where it is now."""
        ...

    def drive(self, goal: float | None, strength: float) -> None:
        """Go to `goal` with a share of its full torque, in [0, 1]; None: no torque, it turns freely."""
        ...


class FirstOrderMotor:
    """A motor that approaches its goal exponentially, and stays where it is without torque.

    Args:
        start: where it is at first, in steps.
        seconds: in which all but 1/e of the way is gone.
        clock: seconds.
    """

    def __init__(self, start: float = 2048.0, seconds: float = 0.05, clock: Callable[[], float] = time.monotonic):
        self._position, self._goal = start, start
        self._seconds, self._clock = seconds, clock
        self._at = clock()

    def position(self) -> float:
        """Where it is now."""
        now = self._clock()
        # dx/dt = (goal − x)/τ, solved from the last time it was asked
        self._position += (self._goal - self._position) * (1.0 - math.exp((self._at - now) / self._seconds))
        self._at = now
        return self._position

    def drive(self, goal: float | None, strength: float) -> None:
        """Go to `goal`, however little the strength; stay without."""
        here = self.position()
        self._goal = here if goal is None or not strength else goal
