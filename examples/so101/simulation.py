"""The desk's tasks for training: `gipo fit --data.task=examples.so101.simulation.Reach`, in the folder of a clone."""

from dataclasses import dataclass
from typing import Any, ClassVar

from datamodules.envs.gymnasium import GymnasiumTask
from datamodules.envs.interface import named
from datamodules.envs.simulation import Simulation, Wrapped
from examples.so101.scene import DRIVEN, PUSH, RATE, REACH, Task

REACHING = GymnasiumTask("examples.so101.tasks:SO101Reach-v0")
PUSHING = GymnasiumTask("examples.so101.tasks:SO101Push-v0")


class OnTheDesk(Wrapped):
    """A task of the arm, with the names of the robot that is to do it."""

    desk: ClassVar[Task]

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate of what is observed and commanded, as the robot has them."""
        actions = {f"{joint}.vel": "deg/s" for joint in DRIVEN}
        readings = dict(zip(self.desk.readings, self.desk.units, strict=True))
        return named(readings, actions) | {"control_rate_hz": RATE}


@dataclass(frozen=True)
class Reach(OnTheDesk):
    """The tip of the gripper is to be at a goal in the air.

    Args:
        task: the Gymnasium environment.
    """

    desk: ClassVar[Task] = REACH
    task: Simulation = REACHING


@dataclass(frozen=True)
class Push(OnTheDesk):
    """A puck is to be pushed to a goal on the desk.

    Args:
        task: the Gymnasium environment.
    """

    desk: ClassVar[Task] = PUSH
    task: Simulation = PUSHING
