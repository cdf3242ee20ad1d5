"""The contract between the control loop and a robot."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from robots.spec import RobotSpec


@dataclass(frozen=True)
class Observation:
    """What the robot measured, and what the task said since the last command.

    Args:
        values: [O] in the order and units of the spec.
        time_ns: `time.monotonic_ns()` when it was measured, not when it was read: a reading repeated because a
            message was lost keeps its time, and so grows old.
        hold: [D] the action that would keep the robot as it is, as `RobotSpec.hold` gives it; None takes the numbers
            of the spec, and is refused where that says "measured".
        reward: for the last command; 0 where nothing measures one.
        success: what an outcome sensor says; None where nothing does. Never the policy's opinion.
        terminated: the task is over (not: time is up).
        images: camera → pixels, uint8 or uint16 (depth), [H, W], [H, W, 1] or [H, W, 3] (red, green, blue: OpenCV has
            them the other way round); or, for the log alone, the bytes of a PNG or JPEG file.
        privileged: [G] what a simulator knows and the policy does not get, for the log alone: a critic may learn from
            it. None of a real robot, which knows no such thing.
    """

    values: np.ndarray
    time_ns: int
    hold: np.ndarray | None = None
    reward: float = 0.0
    success: bool | None = None
    terminated: bool = False
    images: Mapping[str, "np.ndarray | bytes"] = field(default_factory=dict)
    privileged: np.ndarray | None = None


class Robot(Protocol):
    """A robot, as its driver presents it to the control loop.

    `connect`; for each episode `prepare`, then `observe` and `act` in turn at the control rate; `close`: all but
    `stop` are called in this order, one at a time, `stop` and `close` from threads of their own. Any of them may raise,
    which stops the robot; whatever happens after `connect` was called, `close` is called.
    """

    @property
    def spec(self) -> RobotSpec:
        """What the robot is; it must not change while connected."""
        ...

    def connect(self) -> None:
        """Open the hardware. Nothing moves."""
        ...

    def prepare(self, seed: int) -> None:
        """Bring robot and scene to the start of an episode and return when they are there.

        A person may be part of it (`robots.session.prompt.ask`). Clears an earlier `stop`; one that comes
        meanwhile ends it.
        `seed` chooses what can be chosen, e.g. a simulated goal.
        """
        ...

    def observe(self) -> Observation:
        """The newest measurement; returns within a period."""
        ...

    def act(self, action: np.ndarray) -> np.ndarray:
        """Send [D] float64, already within every limit of the spec; return what was really sent.

        Returns within a period. After `stop` it must send nothing.
        """
        ...

    def stop(self, reason: str) -> None:
        """Stop moving, now, and stay stopped until `prepare`: what the spec holds by a number is sent that number.

        Called from any thread, also while `observe` or `act` hangs; more than once is the same as once. May take a
        second. One that raises has not stopped the robot, and is called again.
        """
        ...

    def close(self) -> None:
        """Release the hardware, moving or not; within five seconds. Also called after a `connect` that failed."""
        ...
