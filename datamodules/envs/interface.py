"""What the numbers of a task mean: names, units and control rate, which travel with the policy to the robot."""

from functools import cache
from typing import Any

import gymnasium

from datamodules.envs.gymnasium import GymnasiumTask
from datamodules.envs.simulation import Simulation, close_or_say
from gipo.policies import Spaces


def recorded_interface(task: Simulation, spaces: Spaces) -> dict[str, Any] | None:
    """Names, units and rate as a checkpoint keeps them: a Gymnasium id, which has none, gets generic ones."""
    if not isinstance(task, GymnasiumTask):
        return task.interface
    return gymnasium_interface(task.name, spaces.observation_size, len(spaces.action_low))


def gymnasium_interface(task: str, observation_size: int, action_size: int) -> dict[str, Any]:
    """Generic names and unit 1 for a Gymnasium id; the rate (Hz) only where the environment states one."""
    interface = named(
        {f"observation_{index}": "1" for index in range(observation_size)},
        {f"action_{index}": "1" for index in range(action_size)},
    )
    rate = _stated_rate(task)
    return interface | ({"control_rate_hz": float(rate)} if rate else {})


@cache
def _stated_rate(task: str) -> float | None:
    env = gymnasium.make(task)
    close_or_say(env.close, task)
    return env.metadata.get("render_fps")


def named(observation: dict[str, str], action: dict[str, str]) -> dict[str, Any]:
    """Name → unit of every observation and action, as an artifact's manifest has them."""
    return {
        "observation_names": list(observation),
        "observation_units": list(observation.values()),
        "action_names": list(action),
        "action_units": list(action.values()),
    }
