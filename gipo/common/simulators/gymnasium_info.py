"""What the `info` of a Gymnasium environment says beside observation and reward."""

from collections.abc import Mapping
from typing import Any

SUCCESS = ("success", "is_success")  # where it says whether the task is done: the first that is there and not None


def said_of_success(info: Mapping[str, Any]) -> Any | None:
    """Whether the task is done, as a step's `info` has it; None where it says nothing."""
    return next((info[key] for key in SUCCESS if info.get(key) is not None), None)
