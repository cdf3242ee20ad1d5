"""The desk's tasks for training: `gipo fit --data.task=examples.so101.simulation.Reach`, in the folder of a clone."""

from dataclasses import dataclass
from typing import Any

from datamodules.envs.gymnasium import GymnasiumTask
from datamodules.envs.interface import named
from datamodules.envs.simulation import Simulation, Wrapped
from examples.so101.scene import DRIVEN, PUSH, RATE, REACH, Task

REACHING = GymnasiumTask("examples.so101.tasks:SO101Reach-v0")
PUSHING = GymnasiumTask("examples.so101.tasks:SO101Push-v0")


@dataclass(frozen=True)
class Reach(Wrapped):
    """The tip of the gripper is to be at a goal in the air.

    Args:
        task: the Gymnasium environment.
    """

    task: Simulation = REACHING

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate, as the robot has them."""
        return interface(REACH)


@dataclass(frozen=True)
class Push(Wrapped):
    """A puck is to be pushed to a goal on the desk.

    Args:
        task: the Gymnasium environment.
    """

    task: Simulation = PUSHING

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate, as the robot has them."""
        return interface(PUSH)


def interface(task: Task) -> dict[str, Any]:
    """Names, units and rate of what is observed and commanded on the desk."""
    actions = {f"{joint}.vel": "deg/s" for joint in DRIVEN}
    return named(dict(zip(task.readings, task.units, strict=True)), actions) | {"control_rate_hz": RATE}
