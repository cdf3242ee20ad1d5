"""The toy task of policies that see, as a robot with a camera: `--robot robots.drivers.toy:robot`.

It moves as TorchRL's `ToyVLAEnv` does: an episode has a target, which the camera shows and the state does not, and it
ends with the action that has stayed near it for long enough.
"""

import time

import numpy as np

from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.common.simulators.toy import CAMERA, VisualGap, picture
from robots.base import Observation
from robots.spec import RobotSpec

NO_GAP = VisualGap()
STEPS, TOLERANCE = 4, 0.25  # of a success, as in `toy_vla.yaml`


def robot(
    manifest: Manifest,
    action_gain: float = 1.0,
    light: float = 1.0,
    colour: float = 0.0,
    shift_x: float = 0.0,
    shift_y: float = 0.0,
    noise: float = 0.0,
) -> "ToyRobot":
    """The toy robot for a policy.

    Args:
        manifest: of the policy that will drive it.
        action_gain: it executes this much of what it is told.
        light: factor on every pixel of its camera.
        colour: from 0 to 1, how far red has turned into blue.
        shift_x: how far its picture lies to the right, in actions.
        shift_y: how far below.
        noise: standard deviation of the camera's noise, in grey values.
    """
    if manifest.vision is None:
        raise UserError("the toy robot is for policies that see; the policy takes no image")
    return ToyRobot(
        make_spec(manifest), manifest.vision.image[1], action_gain, VisualGap(light, colour, shift_x, shift_y), noise
    )


def make_spec(manifest: Manifest) -> RobotSpec:
    """The robot as training knows it: its state is the action that it executed last."""
    size = manifest.action_size
    return RobotSpec(
        name="toy",
        observation_names=manifest.observation_names,
        observation_units=manifest.observation_units,
        observation_low=(-10.0,) * manifest.observation_size,
        observation_high=(10.0,) * manifest.observation_size,
        action_names=manifest.action_names,
        action_units=manifest.action_units,
        action_low=(-1.0,) * size,
        action_high=(1.0,) * size,
        action_rate=(None,) * size,
        action_acceleration=(None,) * size,
        action_hold=(0.0,) * size,
        control_rate_hz=manifest.control_rate_hz,
    )


class ToyRobot:
    """A robot that executes an action at once, and shows where it should be.

    Args:
        spec: of the robot.
        size: pixels of its camera's height and width.
        action_gain: it executes this much of what it is told.
        gap: of its camera.
        noise: of its camera, in grey values.
    """

    simulated = True

    def __init__(
        self, spec: RobotSpec, size: int, action_gain: float = 1.0, gap: VisualGap = NO_GAP, noise: float = 0.0
    ):
        self.spec, self.size, self.action_gain, self.gap, self.noise = spec, size, action_gain, gap, noise
        self._stopped = True

    def connect(self) -> None:
        """Do nothing: there is nothing to open."""

    def prepare(self, seed: int) -> None:
        """Draw a target by the seed."""
        self._rng = np.random.default_rng(seed)
        self._target = self._rng.uniform(-0.5, 0.5, 2)
        self._executed, self._reward, self._near = np.zeros(2), 0.0, 0
        self._stopped = False

    def observe(self) -> Observation:
        """The action that was executed last, what came of it, and the picture of both."""
        pixels = picture(self._target[None], self._executed[None], self.size, self.gap)[0]
        if self.noise:
            pixels = np.clip(pixels + self.noise * self._rng.standard_normal(pixels.shape), 0, 255).astype(np.uint8)
        done = self._near >= STEPS
        now = time.monotonic_ns()
        return Observation(self._executed, now, None, self._reward, done, done, {CAMERA: pixels})

    def act(self, action: np.ndarray) -> np.ndarray:
        """Execute an action [2], as far as the gain lets it."""
        if self._stopped:
            raise UserError("the robot is stopped")
        self._executed = np.clip(self.action_gain * action, -1, 1)
        error = self._executed - self._target
        self._reward = -float(np.linalg.norm(error))
        self._near = self._near + 1 if (np.abs(error) <= TOLERANCE).all() else 0
        return action

    def stop(self, reason: str) -> None:
        """Execute nothing more until `prepare`."""
        self._stopped = True

    def close(self) -> None:
        """Do nothing: nothing is open."""
