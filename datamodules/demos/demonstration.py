"""What a demonstration is, whoever gave it."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class Demonstration(NamedTuple):
    """One episode of T steps: what was seen and really done.

    Args:
        observations: [T + 1, O] f32.
        actions: [T, D] f32, within bounds, with whatever noise there was.
        rewards: [T] f32.
        low: [D], lower bounds of an action.
        high: [D], upper bounds of an action.
        terminated: whether the task ended with the last step; else the episode was cut there.
        success: [T] bool, of each step; None where the task knows no success.
        images: step → what each camera saw then, [H, W, 3] uint8, up to T; empty of a task without one.
        instruction: of a task with one.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    low: np.ndarray
    high: np.ndarray
    terminated: bool
    success: np.ndarray | None
    images: Mapping[int, Sequence[np.ndarray]] = MappingProxyType({})
    instruction: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether any step was a success; where the task knows none, every episode counts."""
        return self.success is None or bool(self.success.any())
