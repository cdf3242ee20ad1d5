"""What the `info` of a Gymnasium environment says beside observation and reward."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gipo.common.terminal import say_once

SUCCESS = ("success", "is_success")  # where it says whether the task is done: the first that is there and not None


def said_of_success(info: Mapping[str, Any]) -> Any | None:
    """Whether the task is done, as a step's `info` has it; None where it says nothing."""
    return next((info[key] for key in SUCCESS if info.get(key) is not None), None)


def warn_of_late_success(info: Mapping[str, Any], name: str) -> None:
    """Say once that a step's `info` tells of success though the first step's told nothing: it is not counted.

    Who says only that it is done has no failures, and every episode that says something would have succeeded.

    Args:
        info: of a step.
        name: of the environment, for what is said.
    """
    if is_number(said_of_success(info)):
        say_once(
            f"{name} says whether it is done in some steps' `info`, and not in the first: no success is counted; have "
            "every step say it"
        )


def is_number(value: Any) -> bool:
    """Whether a value is one number; a truth is one."""
    return np.size(value) == 1 and np.asarray(value).dtype.kind in "fiub"


def is_truth(value: Any) -> bool:
    """Whether a value is true or false, or 1 or 0: half of the way is not, nor is a number that is none."""
    return is_number(value) and np.asarray(value).item() in (0, 1)
