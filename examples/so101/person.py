"""A scripted person at the desk, who sees what the tracker sees: helps where the arm does not get on, and judges."""

import mujoco
import numpy as np

from deploy.runtime.manifest import Manifest
from examples.so101.model import TIP, model
from examples.so101.scene import DRIVEN, RATE, SPEED, TASKS, Task
from gipo.common.errors import UserError
from robots.base import Observation
from robots.people.operator import Operator, Said
from robots.spec import RobotSpec

ABOVE, LOW = 0.07, 0.02  # m over the desk: where a finger passes over the puck, and where it pushes it
ASIDE = 0.02  # m beside the line through puck and goal from which on it goes back behind the puck


class Guide:
    """What a person does at the desk: the tip straight to where it has to go, by the arm's own geometry.

    Args:
        task: at hand.
        haste: share of the way that is left, a second.
    """

    def __init__(self, task: Task, haste: float = 4.0):
        self.task, self.haste = task, haste
        self._model = model()
        self._data = mujoco.MjData(self._model)

    def speeds(self, observation: np.ndarray) -> np.ndarray:
        """[4] deg/s of the driven joints."""
        count = len(DRIVEN)
        self._data.qpos[:count] = np.radians(observation[:count])
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        jacobian = np.zeros((3, self._model.nv))
        mujoco.mj_jacSite(self._model, self._data, jacobian, None, self._model.site(TIP).id)
        turning = jacobian[:, :count]
        way = (self._to(observation) - observation[4:7]) * self.haste
        # damped least squares: q' = Jᵀ (J Jᵀ + λ I)⁻¹ x'
        speeds = turning.T @ np.linalg.solve(turning @ turning.T + 1e-3 * np.eye(3), way)
        return np.clip(np.degrees(speeds), -SPEED, SPEED)

    def _to(self, observation: np.ndarray) -> np.ndarray:
        """[3] m where the tip has to go next."""
        tip, goal = observation[4:7], observation[-3:]
        if not self.task.pushes:
            return goal
        puck = observation[7:9]
        back = puck - goal[:2]
        back = back / max(float(np.linalg.norm(back)), 1e-3)
        from_puck = tip[:2] - puck
        along, aside = from_puck @ back, abs(from_puck[0] * back[1] - from_puck[1] * back[0])
        if along > 0.02 and aside < ASIDE and tip[2] < LOW + 0.015:
            return np.append(goal[:2] + 0.02 * back, LOW)
        behind = np.append(puck + 0.05 * back, LOW)
        if along < 0.03 or np.linalg.norm(tip[:2] - behind[:2]) > 0.02:
            behind[2] = ABOVE
        return behind


class DeskPerson(Operator):
    """Looks on, and judges; helps, if asked to, from the step on at which the arm should be further than it is.

    Args:
        spec: of the robot.
        manifest: of the policy, whose task it is.
        help: take over where the arm does not get on.
        patience: steps over which the distance to the goal must become less, or the person takes over; a puck comes no
            nearer before the arm is at it, some 30 steps.
        least: by which it must, m.
    """

    def __init__(
        self, spec: RobotSpec, manifest: Manifest, help: bool = False, patience: int = 10, least: float = 0.01
    ):
        found = [task for task in TASKS.values() if task.readings == spec.observation_names]
        if not found:
            raise UserError(f"the desk has no task with these readings: {', '.join(spec.observation_names)}")
        self.task, self._guide = found[0], Guide(found[0])
        self._help, self._patience, self._least = help, patience, least
        self.begin()

    def begin(self) -> None:
        """An episode begins: nothing is seen yet."""
        self._away: list[float] = []
        self._began_ns, self._seen_ns = 0, -1
        self._engaged = self._done = False
        self._told: bool | None = None

    def action(self, observation: Observation) -> np.ndarray:
        """[4] deg/s, what the person would do."""
        values = np.asarray(observation.values, float)
        if observation.time_ns != self._seen_ns:  # the same one is shown until there is another
            self._seen_ns = observation.time_ns
            self._began_ns = self._began_ns or observation.time_ns
            self._away.append(float(self.task.distance(values)))
            self._done |= self.task.done(values)
            self._engaged = self._help and not self._done and (self._engaged or self._stalls())
        return self._guide.speeds(values)

    def engaged(self) -> bool:
        """Whether the person helps now: from when the arm stalls until the task is done."""
        return self._engaged

    def said(self) -> Said | None:
        """Success when the task is done, failure when hardly any time is left; each once, and the last word counts."""
        passed = (self._seen_ns - self._began_ns) / 1e9  # by the clock: who is busy does not see every tick
        if self._told == self._done or not (self._done or passed >= (self.task.steps - 4) / RATE):
            return None
        self._told = self._done
        return Said(success=self._done)

    def _stalls(self) -> bool:
        if len(self._away) <= self._patience:
            return False
        return self._away[-1 - self._patience] - self._away[-1] < self._least
