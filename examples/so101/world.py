"""The simulated arm behind the bus: MuJoCo as fast as the wall clock, with a gap to what a policy was trained on."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from examples.so101.bus.registers import TURN
from examples.so101.model import JOINTS, STEP, TIP, described
from examples.so101.scene import HOME, RESTING, Layout
from gipo.common.errors import UserError
from robots.settings.annotations import arguments
from robots.settings.assignments import parse_settings

STEPS_PER_RAD = TURN / (2 * np.pi)
MIDDLE = TURN / 2  # where a joint of angle 0 stands
STALL = 0.25  # seconds that are caught up with at most: time of a machine that was busy is lost, not hurried through


@dataclass(frozen=True)
class Gap:
    """How the arm on the desk is unlike that of training.

    Args:
        gain: stiffness of the servos, as a share of that in training: weak ones sag and are slow.
        backlash: play of the gears, degrees: a joint turns back only when its servo has turned by this much.
        latency: seconds between a command on the bus and what it does.
    """

    gain: float = 1.0
    backlash: float = 0.0
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.gain <= 10 and 0 <= self.backlash <= 90 and 0 <= self.latency <= 10):
            raise UserError(f"{self}: gain must be in (0, 10], backlash in [0, 90] degrees, latency in [0, 10] seconds")


def parse_gap(settings: Sequence[str]) -> Gap:
    """The gap of `key=value` texts.

    Raises:
        UserError: when there is no such field, or its value is out of range.
    """
    return Gap(**arguments(Gap, parse_settings(settings, "--gap"), "--gap "))


@dataclass(frozen=True)
class Command:
    """What a servo's motor is to do from a time on: a goal in rad, None for no torque, and its strength in [0, 1]."""

    at: float
    goal: float | None
    strength: float


class World:
    """The arm, the puck and the goal; time passes as `clock` says, whenever someone looks or `run` does.

    Args:
        gap: to the arm of training.
        clock: seconds.
        meshes: with the arm's looks.
    """

    def __init__(self, gap: Gap | None = None, clock: Callable[[], float] = time.monotonic, meshes: bool = False):
        self.gap, self.lock = gap or Gap(), threading.RLock()
        self.model = described(meshes).compile()  # one of its own: torque is a property of the model
        self.data = mujoco.MjData(self.model)
        self.goal = np.zeros(3)
        self._clock, self._now = clock, clock()
        self._stiffness = self.model.actuator_gainprm[:, 0].copy() * self.gap.gain
        self._force = self.model.actuator_forcerange.copy()
        self._wanted = np.zeros(len(JOINTS))  # rad, before the play
        self._commands: tuple[deque[Command], ...] = tuple(deque() for _ in JOINTS)
        self._ended = threading.Event()
        for joint in range(len(JOINTS)):
            self._obey(joint, Command(0.0, None, 0.0))
        rest = [*HOME, *RESTING.values()]
        self.data.qpos[: len(JOINTS)] = np.radians(rest)
        self.data.qpos[-2:] = (0.2, 0.3)
        mujoco.mj_forward(self.model, self.data)

    def catch_up(self) -> None:
        """Let the time pass that has passed."""
        with self.lock:
            now = self._clock()
            self._now = max(self._now, now - STALL)
            while self._now + STEP <= now:
                self._now += STEP
                self._obey_all()
                mujoco.mj_step(self.model, self.data)

    def drive(self, joint: int, goal: float | None, strength: float) -> None:
        """Command a joint, with the latency of the gap; `goal` in rad, None for no torque."""
        self.catch_up()
        with self.lock:
            self._commands[joint].append(Command(self._now + self.gap.latency, goal, strength))

    def angle(self, joint: int) -> float:
        """Where a joint is now, rad."""
        self.catch_up()
        with self.lock:
            return float(self.data.qpos[joint])

    def seen(self) -> dict[str, list[float]]:
        """What a camera above the desk makes out: tip, puck and goal, m."""
        self.catch_up()
        with self.lock:
            mujoco.mj_kinematics(self.model, self.data)
            tip, puck = self.data.site(TIP).xpos, self.data.qpos[-2:]
            return {"tip": tip.tolist(), "puck": puck.tolist(), "goal": self.goal.tolist()}

    def place(self, begin: Layout) -> None:
        """Put puck and goal where an episode begins; the arm has to go there by itself."""
        self.catch_up()
        with self.lock:
            self.goal = begin.goal
            self.model.site("goal").pos = begin.goal
            self.data.qpos[-2:], self.data.qvel[-2:] = begin.puck, 0.0

    def run(self, seconds: float = 0.02) -> None:
        """Let time pass until `end`, in steps of some milliseconds; for a thread of its own."""
        while not self._ended.wait(seconds):
            self.catch_up()

    def end(self) -> None:
        """End `run`."""
        self._ended.set()

    def _obey_all(self) -> None:
        half = np.radians(self.gap.backlash) / 2
        for joint, commands in enumerate(self._commands):
            while commands and commands[0].at <= self._now:
                self._obey(joint, commands.popleft())
            # the play of the gears: the joint's side follows only once the servo's side pushes it
            wanted = self._wanted[joint]
            self.data.ctrl[joint] = np.clip(self.data.ctrl[joint], wanted - half, wanted + half)

    def _obey(self, joint: int, command: Command) -> None:
        torque = command.goal is not None and command.strength > 0
        if command.goal is not None:
            self._wanted[joint] = command.goal
        self.model.actuator_gainprm[joint, 0] = self._stiffness[joint] * torque
        self.model.actuator_biasprm[joint, 1] = -self._stiffness[joint] * torque
        self.model.actuator_forcerange[joint] = self._force[joint] * command.strength


@dataclass(frozen=True)
class JointMotor:
    """A joint of the arm as the motor behind a servo."""

    world: World
    joint: int

    def position(self) -> float:
        """Where the joint is, in steps of the encoder."""
        return MIDDLE + self.world.angle(self.joint) * STEPS_PER_RAD

    def drive(self, goal: float | None, strength: float) -> None:
        """Turn the joint."""
        self.world.drive(self.joint, None if goal is None else (goal - MIDDLE) / STEPS_PER_RAD, strength)
