"""What the numbers of a task mean: names, units and control rate, which travel with the policy to the robot."""

from functools import cache
from typing import Any

import gymnasium

METAWORLD_RATE_HZ = 80.0  # five MuJoCo steps of 2.5 ms an action
_AXES = ("x", "y", "z")


def metaworld_interface() -> dict[str, Any]:
    """Names and units of MetaWorld's 39 observations and 4 actions.

    An observation is the current frame, the previous frame and the goal. A frame is the hand, the gripper opening, and
    two slots of object position and quaternion, zero where a task has fewer objects. An action moves the hand by
    centimetres and closes the gripper.
    """
    frame = {f"hand_{axis}": "m" for axis in _AXES} | {"gripper_opening": "1"}
    for slot in ("object_1", "object_2"):
        frame |= {f"{slot}_{axis}": "m" for axis in _AXES}
        frame |= {f"{slot}_q{index}": "1" for index in range(4)}
    observation = frame | {f"previous_{name}": unit for name, unit in frame.items()}
    observation |= {f"goal_{axis}": "m" for axis in _AXES}
    action = {f"hand_d{axis}": "cm" for axis in _AXES} | {"gripper_effort": "1"}
    return named(observation, action) | {"control_rate_hz": METAWORLD_RATE_HZ}


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
