"""The contract of a person with a device, who may take the robot over inside an episode, and say how it goes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from robots.base import Observation
from robots.log.labels import MAX_REWARD, is_reward


@dataclass(frozen=True)
class Said:
    """What a person says of the episode at a tick; fields that are None say nothing.

    Args:
        success: whether the task is done (True), or will not be (False).
        reward: for what the robot did last.
        discard: True: nothing is to be learned from this episode.

    Raises:
        TypeError: when it is of another form, which no log can hold.
    """

    success: bool | None = None
    reward: float | None = None
    discard: bool | None = None

    def __post_init__(self) -> None:
        for name in ("success", "discard"):
            if not isinstance(value := getattr(self, name), bool | np.bool_ | None):
                raise TypeError(f"a person says {name}={value!r:.60}; it must be True, False or None")
        number = self.reward.item() if isinstance(self.reward, np.number) else self.reward
        if not is_reward(number):
            raise TypeError(f"a person says reward={self.reward!r:.60}; it must be a number up to {MAX_REWARD:g}")
        object.__setattr__(self, "reward", None if number is None else float(number))

    @property
    def data(self) -> dict[str, Any]:
        """What is said, by its field."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def verdict(self) -> str:
        """The word that judges the whole episode, and may end it; empty for a mere reward."""
        if self.discard:
            return "discard"
        return "" if self.success is None else "success" if self.success else "failure"


class Operator(ABC):
    """A person with a device.

    `begin`; then again and again `action`, `engaged` and `said`; `rest`: all of these in one thread that belongs to the
    operator alone, four times a control period. The control loop never waits for it. Any of them may raise, and one
    that takes longer than `--deadline` periods counts as dead: then the robot is held, and stopped.
    """

    @abstractmethod
    def action(self, observation: Observation) -> np.ndarray | None:
        """[D] what the person commands, action units, or would if they had the robot; None for nothing.

        Asked whether they have it or not, before `engaged`; while they do, None holds the robot. Must not block.
        """

    @abstractmethod
    def engaged(self) -> bool:
        """Whether the person has the robot now."""

    @abstractmethod
    def said(self) -> Said | None:
        """What the person has said, one word at a call, in order; None when that is all."""

    def begin(self) -> None:  # noqa: B027 - most need nothing
        """An episode begins: the device is the robot's from here on."""

    def rest(self) -> None:  # noqa: B027 - most need nothing
        """The episode is over: give back what others need, such as the terminal."""

    def close(self) -> None:  # noqa: B027 - most need nothing
        """Release the device. From any thread; more than once is the same as once."""
