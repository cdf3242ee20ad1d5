"""MetaWorld's Sawyer as a robot that behaves like hardware: it lives in real time, and not quite as in training.

Nothing of MetaWorld is imported before `connect`.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError, nearest
from gipo.common.extras import install
from gipo.common.simulators.metaworld import (
    ACTION_HIGH,
    ACTION_LOW,
    ACTIONS,
    OBSERVATIONS,
    RATE_HZ,
    hasten,
    show_goal,
)
from robots.base import Observation
from robots.drivers.gap import Range, WithinRanges
from robots.settings.annotations import chosen
from robots.spec import RobotSpec

REACH = 10.0  # metres, and more than any quaternion or gripper says: a reading beyond it is a fault


@dataclass(frozen=True)
class RealityGap(WithinRanges):
    """How this arm differs from the one in training; the defaults are no gap.

    Args:
        action_gain: the arm moves this much of what it is told.
        action_offset: added to the moves in x, y and z, action units.
        delay: ticks between a command and its effect.
        friction_scale: of every joint's damping and dry friction.
        mass_scale: of every body.
        observation_bias: standard deviation of a constant error of each reading, drawn once an episode.
        observation_noise: standard deviation of an error drawn at every reading.
        drop: probability that a reading is lost, and the one before is seen again, with its time.
    """

    action_gain: float = 1.0
    action_offset: float = 0.0
    delay: int = 0
    friction_scale: float = 1.0
    mass_scale: float = 1.0
    observation_bias: float = 0.0
    observation_noise: float = 0.0
    drop: float = 0.0

    ranges: ClassVar[Mapping[str, Range]] = MappingProxyType(
        {"action_gain": (-10, 10), "action_offset": (-1, 1), "delay": (0, 100), "drop": (0, 1)}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delay != int(self.delay):
            raise UserError(f"the gap's delay is {self.delay}; it must be a whole number of ticks")


def robot(
    manifest: Manifest,
    task: str | None = None,
    speed: float = 1.0,
    rate: float | None = None,
    acceleration: float | None = None,
    **gap: Any,
) -> "SimRobot":
    """The simulated arm for a policy.

    Args:
        manifest: of the policy that will drive it.
        task: a MetaWorld task; the manifest's unless given.
        speed: of the loop; at any but 1 the arm moves one step a command instead of by the wall clock.
        rate: largest change of an action a second; None for no limit.
        acceleration: largest change of that a second; None for no limit.
        gap: fields of RealityGap.
    """
    return SimRobot(
        manifest.task if task is None else task,
        chosen(RealityGap, gap, "the simulated arm", besides=("task", "rate", "acceleration")),
        speed == 1,
        make_spec(rate, acceleration).named_as(manifest),
    )


def make_spec(rate: float | None = None, acceleration: float | None = None) -> RobotSpec:
    """The Sawyer as training knows it, with limits of rate and acceleration as `robot` takes them."""
    observations, actions = len(OBSERVATIONS), len(ACTIONS)
    return RobotSpec(
        name="sim",
        observation_names=tuple(OBSERVATIONS),
        observation_units=tuple(OBSERVATIONS.values()),
        observation_low=(-REACH,) * observations,
        observation_high=(REACH,) * observations,
        action_names=tuple(ACTIONS),
        action_units=tuple(ACTIONS.values()),
        action_low=(ACTION_LOW,) * actions,
        action_high=(ACTION_HIGH,) * actions,
        action_rate=(rate,) * actions,
        action_acceleration=(acceleration,) * actions,
        action_hold=(0.0,) * actions,
        control_rate_hz=RATE_HZ,
    )


class SimRobot:
    """A Sawyer whose time passes whether or not anyone commands it.

    Args:
        task: a MetaWorld task, e.g. `reach-v3`; every episode has a new goal, chosen by its seed.
        gap: how it differs from training.
        realtime: the arm moves by the wall clock, so a late command finds it elsewhere; else one step a command.
        spec: of the robot.
    """

    simulated = True

    def __init__(
        self,
        task: str,
        gap: RealityGap = RealityGap(),
        realtime: bool = True,
        spec: RobotSpec | None = None,
    ):
        self.task, self.gap, self.realtime = task, gap, realtime
        self.spec = spec or make_spec()
        self._env: Any = None
        self._stopped = True
        self._period = self.spec.period_ns

    def connect(self) -> None:
        """Build the simulator, with the gap's masses and friction."""
        self._env = _build(self.task)
        model = self._env.model
        model.body_mass[:] *= self.gap.mass_scale
        model.body_inertia[:] *= self.gap.mass_scale
        model.dof_damping[:] *= self.gap.friction_scale
        model.dof_frictionloss[:] *= self.gap.friction_scale

    def prepare(self, seed: int) -> None:
        """Begin with a new goal and a new constant error of the sensors, both drawn from `seed`."""
        self._env.np_random = np.random.default_rng(seed)
        self._rng = np.random.default_rng([seed, 1, 1])  # [seed, 1] is the policy's noise, in an episode 1
        values, _ = self._env.reset()
        self._values = np.asarray(values, float)
        self._bias = self.gap.observation_bias * self._rng.standard_normal(len(values))
        self._hold = np.array(self.spec.action_hold)
        self._command = self._hold
        self._waiting = deque([self._hold] * int(self.gap.delay))
        self._commanded = False
        self._anchor: int | None = None
        self._ticks = 0
        self._success, self._seen = False, (self._values, 0)
        self._stopped = False

    def observe(self) -> Observation:
        """Let the time pass that has passed, then read the sensors; the last reading again if this one is lost."""
        reward = 0.0
        for _ in range(self._due()):
            reward += self._tick()
        now = time.monotonic_ns()
        noise = self.gap.observation_noise * self._rng.standard_normal(len(self._values))
        if self._seen[1] == 0 or self._rng.random() >= self.gap.drop:
            self._seen = (self._values + self._bias + noise, now)
        values, seen_ns = self._seen
        return Observation(values, seen_ns, reward=reward, success=self._success)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Give the arm a command; it moves by the next `observe`."""
        if self._stopped:
            raise UserError("the arm is stopped")
        self._waiting.append(action)
        self._command = self._waiting.popleft()
        self._commanded = True
        return action

    def stop(self, reason: str) -> None:
        """Hold the arm still until `prepare`."""
        self._stopped = True

    def close(self) -> None:
        """Release the simulator."""
        self._stopped = True
        if self._env is not None:
            self._env.close()

    def _due(self) -> int:
        """Ticks of the arm since the last observation."""
        if not self.realtime:
            due, self._commanded = int(self._commanded), False
            return due
        now = time.monotonic_ns()
        if self._anchor is None:
            self._anchor = now
        passed = round((now - self._anchor) / self._period)
        due, self._ticks = passed - self._ticks, passed
        return due

    def _tick(self) -> float:
        command = self._hold if self._stopped else self.gap.action_gain * self._command
        command = command + self.gap.action_offset * np.array([1.0, 1.0, 1.0, 0.0]) * (not self._stopped)
        values, reward, _, _, info = self._env.step(np.clip(command, ACTION_LOW, ACTION_HIGH).astype(np.float32))
        self._values = np.asarray(values, float)
        self._success = bool(info["success"])
        return float(reward)


def _build(task: str) -> Any:
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    except ModuleNotFoundError as error:
        raise UserError(f"the simulated arm needs MetaWorld ({error.name} is missing): {install('sim')}") from error
    if task not in ALL_V3_ENVIRONMENTS:
        raise UserError(
            f"{task!r} is no MetaWorld task; the nearest: {nearest(task, ALL_V3_ENVIRONMENTS)} (--set task=NAME)"
        )
    env = ALL_V3_ENVIRONMENTS[task]()
    show_goal(env)
    hasten(env)
    env.max_path_length = 2**62  # the loop says when time is up
    return env
