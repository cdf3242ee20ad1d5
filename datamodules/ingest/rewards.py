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


def rewards_by(function: Reward, columns: dict[str, np.ndarray], success: bool | None) -> np.ndarray:
    """The rewards [T] float32 that a function gives for an episode.

    Raises:
        UserError: when it does not give one finite number a step.
    """
    name, step = getattr(function, "__name__", repr(function)), columns["step"]
    given = function(columns, success)
    try:
        found = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of several lengths, or a tensor elsewhere
        raise UserError(f"the reward {name} gave what is no array of numbers: {error}") from error
    if found.shape != step.shape or found.dtype.kind not in "biuf":
        raise UserError(
            f"the reward {name} gave {found.dtype} of shape {list(found.shape)}; it must give one number a step"
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as that
        rewards = np.ascontiguousarray(found, np.float32)
    if not np.isfinite(rewards).all():
        raise UserError(f"the reward {name} is not finite at step {step[int(np.argmax(~np.isfinite(rewards)))]}")
    return rewards
