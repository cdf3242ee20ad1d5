"""The tasks of the desk as Gymnasium environments: `examples.so101.tasks:SO101Reach-v0` and `…:SO101Push-v0`."""

from typing import Any

import gymnasium
import mujoco
import numpy as np

from examples.so101.model import STEP, TIP, model
from examples.so101.scene import DRIVEN, PUSH, RATE, REACH, SPEED, TASKS, Layout, layout, lead

SUBSTEPS = round(1 / RATE / STEP)


class Desk(gymnasium.Env):
    """An arm at the desk, its joints driven by speeds as on the robot.

    Observation: `Task.readings`; action: [4] deg/s of the driven joints.

    Args:
        task: a name in `TASKS`.
    """

    metadata = {"render_modes": [], "render_fps": RATE}  # noqa: RUF012 - Gymnasium's own

    def __init__(self, task: str):
        self.task = TASKS[task]
        self._model = model()
        self._data = mujoco.MjData(self._model)
        self._target = np.zeros(len(DRIVEN))
        self._goal = np.zeros(3)
        size = len(self.task.readings)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = gymnasium.spaces.Box(-SPEED, SPEED, (len(DRIVEN),), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Put arm, puck and goal where an episode begins."""
        super().reset(seed=seed)
        self._place(layout(self.task, self.np_random))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Drive the joints for a period; the episode goes on when the task is done."""
        here = np.degrees(self._data.qpos[: len(DRIVEN)])
        self._target = lead(self._target, here, np.asarray(action, float))
        self._data.ctrl[: len(DRIVEN)] = np.radians(self._target)
        mujoco.mj_step(self._model, self._data, SUBSTEPS)
        seen = self._observe()
        return seen, float(self.task.reward(seen)), False, False, {"success": self.task.done(seen)}

    def _place(self, begin: Layout) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._target, self._goal = begin.joints.copy(), begin.goal
        self._data.qpos[: len(DRIVEN)] = self._data.ctrl[: len(DRIVEN)] = np.radians(begin.joints)
        self._data.qpos[-2:] = begin.puck
        mujoco.mj_forward(self._model, self._data)

    def _observe(self) -> np.ndarray:
        mujoco.mj_kinematics(self._model, self._data)
        joints = np.degrees(self._data.qpos[: len(DRIVEN)])
        puck = self._data.qpos[-2:] if self.task.pushes else ()
        return np.concatenate([joints, self._data.site(TIP).xpos, puck, self._goal])


for identity, each in (("SO101Reach-v0", REACH), ("SO101Push-v0", PUSH)):
    gymnasium.register(identity, Desk, max_episode_steps=each.steps, kwargs={"task": each.name})
