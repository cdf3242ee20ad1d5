"""What the `info` of a Gymnasium environment says beside observation and reward."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SUCCESS = ("success", "is_success")  # where it says whether the task is done: the first that is there and not None


def said_of_success(info: Mapping[str, Any]) -> Any | None:
    """Whether the task is done, as a step's `info` has it; None where it says nothing."""
    return next((info[key] for key in SUCCESS if info.get(key) is not None), None)


def is_number(value: Any) -> bool:
    """Whether a value is one number; a truth is one."""
    return np.size(value) == 1 and np.asarray(value).dtype.kind in "fiub"


def is_truth(value: Any) -> bool:
    """Whether a value is true or false, or 1 or 0: half of the way is not, nor is a number that is none."""
    return is_number(value) and np.asarray(value).item() in (0, 1)
