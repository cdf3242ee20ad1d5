"""The toy task of policies that see, as a robot with a camera: `--robot robots.drivers.toy:robot`.

It moves as TorchRL's `ToyVLAEnv` does: an episode has a target, which the camera shows and the state does not, and it
ends with the action that has stayed near it for long enough.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from deploy.runtime.layout import Vision
from deploy.runtime.manifest import Manifest
from gipo.common.errors import UserError
from gipo.common.simulators.toy import CAMERA, CAMERAS, Size, VisualGap, pictures
from robots.base import Observation
from robots.drivers.gap import VISUAL, WithinRanges
from robots.settings.annotations import chosen
from robots.spec import RobotSpec

STEPS, TOLERANCE = 4, 0.25  # of a success, as in `toy_vla.yaml`


@dataclass(frozen=True)
class ToyGap(WithinRanges, VisualGap):
    """How this robot differs from the one in training; the defaults are no gap.

    Args:
        action_gain: it executes this much of what it is told.
        noise: standard deviation of the camera's noise, in grey values.
    """

    action_gain: float = 1.0
    noise: float = 0.0

    ranges = MappingProxyType({**VISUAL, "action_gain": (-10, 10), "noise": (0, 255)})


NO_GAP = ToyGap()


def robot(manifest: Manifest, **gap: Any) -> "ToyRobot":
    """The toy robot for a policy.

    Args:
        manifest: of the policy that will drive it.
        gap: fields of ToyGap.
    """
    if manifest.vision is None:
        raise UserError("the toy robot is for policies that see; the policy takes no image")
    cameras = cameras_for(manifest.vision)
    if len(cameras) > 1 and tuple(cameras) != CAMERAS:
        raise UserError(f"the toy robot has the cameras {', '.join(CAMERAS)}; the policy sees by {', '.join(cameras)}")
    return ToyRobot(make_spec(manifest), cameras, chosen(ToyGap, gap, "the toy robot"))


def cameras_for(vision: Vision) -> dict[str, Size]:
    """Height and width of what each camera shows that a policy sees by, by its name."""
    shapes = zip(vision.cameras or (CAMERA,), vision.shapes, strict=True)
    return {name: (height, width) for name, (height, width, _) in shapes}


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
        cameras: that it has, of those that the simulator has, each with height and width of its image.
        gap: how it differs from training.
    """

    simulated = True

    def __init__(self, spec: RobotSpec, cameras: Mapping[str, Size], gap: ToyGap = NO_GAP):
        self.spec, self.gap, self._cameras = spec, gap, cameras
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
        """The action that was executed last, what came of it, the picture of both, and for the log the target."""
        shown = pictures(self._cameras, self._target[None], self._executed[None], self.gap)
        images = {camera: self._noisy(pixels[0]) for camera, pixels in shown.items()}
        done = self._near >= STEPS
        now = time.monotonic_ns()
        return Observation(self._executed, now, None, self._reward, done, done, images, self._target)

    def _noisy(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels with the noise of the gap."""
        if not self.gap.noise:
            return pixels
        return np.clip(pixels + self.gap.noise * self._rng.standard_normal(pixels.shape), 0, 255).astype(np.uint8)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Execute an action [2], as far as the gain lets it."""
        if self._stopped:
            raise UserError("the robot is stopped")
        self._executed = np.clip(self.gap.action_gain * action, -1, 1)
        error = self._executed - self._target
        self._reward = -float(np.linalg.norm(error))
        self._near = self._near + 1 if (np.abs(error) <= TOLERANCE).all() else 0
        return action

    def stop(self, reason: str) -> None:
        """Execute nothing more until `prepare`."""
        self._stopped = True

    def close(self) -> None:
        """Do nothing: nothing is open."""
