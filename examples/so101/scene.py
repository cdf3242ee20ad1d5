"""The desk: joints, tasks, where things begin, what is seen, what it is worth; for simulator, robot and person."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RATE = 30.0  # Hz
DRIVEN = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex")
RESTING = {"wrist_roll": 0.0, "gripper": 5.0}  # degrees, percent: not driven by a task
HOME = np.array([0.0, -60.0, 45.0, 70.0])  # degrees of the driven joints
SPEED = 90.0  # deg/s, the most that may be commanded
LEAD = 12.0  # degrees that a target may be ahead of its joint: it does not run away from one that cannot follow
AXIS = np.array([0.0388, 0.0])  # m, where the pan joint stands on the desk
PUCK_RADIUS = 0.025  # m


@dataclass(frozen=True)
class Task:
    """What is to be done on the desk.

    Args:
        name: of the task.
        tolerance: distance from the goal at which it is done, m.
        steps: after which an episode is over.
        pushes: whether there is a puck, which is to be at the goal; else it is the tip of the gripper.
    """

    name: str
    tolerance: float
    steps: int
    pushes: bool

    @property
    def readings(self) -> tuple[str, ...]:
        """Names of what is observed: the driven joints, then the tracker's positions."""
        puck = ("puck.x", "puck.y") if self.pushes else ()
        return (*(f"{joint}.pos" for joint in DRIVEN), "tip.x", "tip.y", "tip.z", *puck, "goal.x", "goal.y", "goal.z")

    @property
    def units(self) -> tuple[str, ...]:
        """Their units."""
        return ("deg",) * len(DRIVEN) + ("m",) * (len(self.readings) - len(DRIVEN))

    def distance(self, observation: np.ndarray) -> np.ndarray:
        """[…] m between the goal and what is to be there, of observations […, O]."""
        goal = observation[..., -3:]
        moved = observation[..., 7:9] if self.pushes else observation[..., 4:7]
        return np.linalg.norm(moved - goal[..., : moved.shape[-1]], axis=-1)

    def reward(self, observation: np.ndarray) -> np.ndarray:
        """[…] what it is worth to be where an observation […, O] is: 1 near the goal, 1 more when it is done."""
        away = self.distance(observation)
        worth = 1.0 - np.tanh(5.0 * away) + (away < self.tolerance)
        if self.pushes:  # and a tenth for being at the puck, on the side that is away from the goal
            puck, goal, tip = observation[..., 7:9], observation[..., -3:-1], observation[..., 4:7]
            back = puck - goal
            back = back / np.maximum(np.linalg.norm(back, axis=-1, keepdims=True), 0.01)
            behind = np.concatenate([puck + 0.03 * back, np.full_like(puck[..., :1], 0.02)], -1)
            worth = worth + 0.5 * (1.0 - np.tanh(8.0 * np.linalg.norm(tip - behind, axis=-1)))
        return worth

    def done(self, observation: np.ndarray) -> bool:
        """Whether it is done where an observation [O] is."""
        return bool(self.distance(observation) < self.tolerance)


REACH = Task("so101-reach", tolerance=0.02, steps=75, pushes=False)
PUSH = Task("so101-push", tolerance=0.03, steps=120, pushes=True)
TASKS = {task.name: task for task in (REACH, PUSH)}


@dataclass(frozen=True)
class Layout:
    """How an episode begins: joints [4] in degrees, goal [3] and puck [2] in m."""

    joints: np.ndarray
    goal: np.ndarray
    puck: np.ndarray


def layout(task: Task, random: np.random.Generator) -> Layout:
    """The beginning of an episode of a task, by chance."""
    joints = HOME + random.uniform(-8.0, 8.0, len(HOME))
    if task.pushes:
        puck = _at(random.uniform(0.17, 0.20), random.uniform(-20.0, 20.0))
        goal = puck + random.uniform([0.05, -0.03], [0.08, 0.03])
        return Layout(joints, np.append(goal, 0.0), puck)
    place = _at(random.uniform(0.15, 0.28), random.uniform(-50.0, 50.0))
    return Layout(joints, np.append(place, random.uniform(0.05, 0.20)), np.array([0.2, 0.3]))


def _at(radius: float, degrees: float) -> np.ndarray:
    """[2] m of a place on the desk, around the pan joint."""
    return AXIS + radius * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def lead(target: np.ndarray, measured: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Where the joints are to be after a period at `speed`, deg/s: at most LEAD from where they are; degrees."""
    return np.clip(target + speed / RATE, measured - LEAD, measured + LEAD)


def reach_reward(columns: Mapping[str, np.ndarray], success: bool | None) -> np.ndarray:
    """Reward of every step of a log of reach: `--data.ingest.reward=examples.so101.scene.reach_reward`."""
    return REACH.reward(columns["next_observation"]).astype(np.float32)


def push_reward(columns: Mapping[str, np.ndarray], success: bool | None) -> np.ndarray:
    """Reward of every step of a log of push: `--data.ingest.reward=examples.so101.scene.push_reward`."""
    return PUSH.reward(columns["next_observation"]).astype(np.float32)
