"""What the numbers of a task mean: names, units and control rate, which travel with the policy to the robot."""

from functools import cache
from typing import Any

import gymnasium


def gymnasium_interface(task: str, observation_size: int, action_size: int) -> dict[str, Any]:
    """Generic names for a Gymnasium id; the rate only where the environment states one."""
    interface = named(
        {f"observation_{index}": "1" for index in range(observation_size)},
        {f"action_{index}": "1" for index in range(action_size)},
    )
    rate = _stated_rate(task)
    return interface | ({"control_rate_hz": float(rate)} if rate else {})


@cache
def _stated_rate(task: str) -> float | None:
    env = gymnasium.make(task)
    env.close()
    return env.metadata.get("render_fps")


def named(observation: dict[str, str], action: dict[str, str]) -> dict[str, Any]:
    """Name → unit of every observation and action, as an artifact's manifest has them."""
    return {
        "observation_names": list(observation),
        "observation_units": list(observation.values()),
        "action_names": list(action),
        "action_units": list(action.values()),
    }
