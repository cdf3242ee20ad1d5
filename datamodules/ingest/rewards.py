"""What a step is worth: functions of the columns of one episode and of whether it succeeded."""

from collections.abc import Callable, Mapping

import numpy as np

from gipo.common.errors import UserError

Reward = Callable[[Mapping[str, np.ndarray], "bool | None"], np.ndarray]
"""(columns, success) → reward [T] float32.

`columns` holds the T steps of one episode, read-only: `observation` and `next_observation` [T, O] f32, `action` and
`sent_action` [T, D] f32, `latent` and `log_prob` [T, D] where the source has them, and `reward` (as the source and its
labels give it), `policy_version`, `step`, `valid`, `terminated`, `truncated` [T]. `success` is None where nobody said.
"""


def logged(columns: Mapping[str, np.ndarray], success: bool | None) -> np.ndarray:
    """The reward of the source, with that of a label added to the last step it was given for."""
    return columns["reward"]


def success(columns: Mapping[str, np.ndarray], success: bool | None) -> np.ndarray:
    """1 on the last step of a successful episode, 0 everywhere else.

    Raises:
        UserError: when nobody said whether the episode succeeded.
    """
    if success is None:
        raise UserError("nobody said whether it succeeded; `gipo-robot label` does, or choose another reward")
    reward = np.zeros(len(columns["step"]), np.float32)
    reward[-1] = float(success)
    return reward
