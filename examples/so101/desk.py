"""The arm at the desk for LeRobot: its own SO-101 follower, unchanged, with a tracker beside it, driven by speeds.

`gipo-robot run --robot lerobot --set device=examples.so101.desk:DeskSO101 …`, in the folder of a clone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from lerobot.robots import RobotConfig
from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

from examples.so101.scene import DRIVEN, RATE, RESTING, TASKS, layout, lead
from examples.so101.server import Visitor
from gipo.common.errors import UserError

HOMING = 45.0  # deg/s


@RobotConfig.register_subclass("desk_so101")
@dataclass(kw_only=True)
class DeskSO101Config(SO101FollowerConfig):
    """Configuration of LeRobot's own follower, and of the desk.

    Args:
        scene: socket of the tracker.
        task: what is to be done: a name in `TASKS`.
    """

    scene: str
    task: str = "so101-reach"


class DeskSO101(SO101Follower):
    """LeRobot's follower, commanded by speeds of the driven joints, with the tracker's positions among its readings."""

    config_class = DeskSO101Config
    name = "desk_so101"

    def __init__(self, config: DeskSO101Config):
        if config.task not in TASKS:
            raise UserError(f"the desk has no task {config.task!r}; it has {', '.join(TASKS)}")
        super().__init__(config)
        self.task = TASKS[config.task]
        self._target = self._measured = np.zeros(len(DRIVEN))

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        """The driven joints, the tracker's positions, and the follower's cameras."""
        return {**dict.fromkeys(self.task.readings, float), **self._cameras_ft}

    @cached_property
    def action_features(self) -> dict[str, Any]:
        """Speeds of the driven joints, deg/s."""
        return {f"{joint}.vel": float for joint in DRIVEN}

    def connect(self, calibrate: bool = True) -> None:
        """Open the bus, and visit the desk; until anything is commanded, what holds the arm is where it stands."""
        self._desk = Visitor(self.config.scene)
        super().connect(calibrate)
        self.get_observation()
        self._target = self._measured

    def prepare(self, seed: int, stopped: Callable[[], bool] = lambda: False) -> None:
        """Drive to where the episode begins, no further once it is `stopped`, and have puck and goal placed.

        In this order, or the arm could sweep the puck away on its way.
        """
        begin = layout(self.task, np.random.default_rng(seed)).joints
        self.get_observation()
        here, started = self._measured, time.monotonic()
        seconds = max(float(np.abs(begin - here).max()) / HOMING, 0.1)
        while (passed := (time.monotonic() - started) / seconds) < 1.0:
            if stopped():
                return
            self._measured = self._go(here + passed * (begin - here))  # where it is held, if it is stopped on its way
            time.sleep(1 / RATE)
        if stopped():
            return
        self._go(begin)
        time.sleep(0.3)
        self._desk.ask(place=seed, task=self.task.name)
        self.get_observation()

    def get_observation(self) -> dict[str, Any]:
        """What the follower reads, and where the tracker sees everything."""
        found = super().get_observation()
        seen = self._desk.ask(look=True)
        self._measured = np.array([found[f"{joint}.pos"] for joint in DRIVEN])
        for what in ("tip", "puck", "goal"):
            found |= {f"{what}.{axis}": value for axis, value in zip("xyz", seen[what], strict=False)}
        return {name: found[name] for name in self.observation_features}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Move the targets of the joints by a period at these speeds; the speeds by which they were really moved.

        A target is held back near a joint that does not follow, and by the follower's own `max_relative_target`.
        """
        speeds, before = np.array([action[f"{joint}.vel"] for joint in DRIVEN], float), self._target
        after = self._go(lead(before, self._measured, speeds))
        # Where nothing was held back, what was asked for itself, without the rounding of going there and back.
        moved = np.where(after == before + speeds / RATE, speeds, (after - before) * RATE)
        return {f"{joint}.vel": speed for joint, speed in zip(DRIVEN, moved.tolist(), strict=True)}

    def disconnect(self) -> None:
        """Close the bus, and leave the desk."""
        super().disconnect()
        self._desk.close()

    def _go(self, target: np.ndarray) -> np.ndarray:
        """Send the follower to a target; the target that it has sent."""
        goals = {**dict(zip(DRIVEN, target.tolist(), strict=True)), **RESTING}
        sent = super().send_action({f"{joint}.pos": degrees for joint, degrees in goals.items()})
        self._target = np.array([sent[f"{joint}.pos"] for joint in DRIVEN], float)
        return self._target
