"""What the pages say is there, and only a reader with a robot has: policies of an arm, its driver, a model."""

import json
import re
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.export.artifact import export
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, Spaces
from robots.spec import is_marked
from tests.gipo.vla.builders import save_model
from tests.offline import save

JOINTS = tuple(f"{name}.pos" for name in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "gripper"))


def make_policy(path: Path, names: tuple[str, ...], units: tuple[str, ...], action_units: tuple[str, ...],
                bound: float, rate: float) -> None:  # fmt: skip
    """An artifact of a robot whose actions have the names of its readings."""
    torch.manual_seed(0)
    spaces = Spaces(len(names), (-bound,) * len(names), (bound,) * len(names))
    policy = GaussianPolicy(spaces, network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)))
    interface = {
        "observation_names": names, "observation_units": units, "action_names": names, "action_units": action_units,
        "control_rate_hz": rate,
    }  # fmt: skip
    export(save(policy, path.with_suffix(".ckpt"), interface=interface), path, observations=16)
    path.with_suffix(".ckpt").unlink()


@dataclass
class Camera:
    """`lerobot.cameras.CameraConfig`: its subclasses are found by the key `type`."""

    width: int
    height: int
    fps: int

    @classmethod
    def get_known_choices(cls) -> dict[str, type]:
        return {"opencv": OpenCVCamera}


@dataclass
class OpenCVCamera(Camera):
    """`lerobot.cameras.opencv.OpenCVCameraConfig`."""

    index_or_path: int | Path


@dataclass
class SO101FollowerConfig:
    """`lerobot.robots.so_follower.SO101FollowerConfig`."""

    port: str
    id: str | None = None
    cameras: dict[str, Camera] = field(default_factory=dict)


class RobotConfig:
    """`lerobot.robots.RobotConfig`, which knows one robot."""

    @staticmethod
    def get_known_choices() -> dict[str, type]:
        return {"so101_follower": SO101FollowerConfig}

    @staticmethod
    def get_choice_class(name: str) -> type:
        return RobotConfig.get_known_choices()[name]


class SO101Follower:
    """`lerobot.robots.so_follower:SO101Follower`, as far as it is asked."""

    config_class = SO101FollowerConfig
    name = "so101_follower"
    action_features = dict.fromkeys(JOINTS, float)
    is_connected = is_calibrated = True

    def __init__(self, config: Any):
        mode = {joint: "range_0_100" if joint == "gripper.pos" else "range_m100_100" for joint in JOINTS}
        self.bus = types.SimpleNamespace(
            motors={joint[:-4]: types.SimpleNamespace(norm_mode=found) for joint, found in mode.items()}
        )
        self.cameras = {name: (camera.height, camera.width, 3) for name, camera in config.cameras.items()}

    @property
    def observation_features(self) -> dict[str, Any]:
        return self.action_features | self.cameras

    def connect(self, calibrate: bool = True) -> None: ...

    def get_observation(self) -> dict[str, Any]:
        images = {name: np.zeros(shape, np.uint8) for name, shape in self.cameras.items()}
        return dict.fromkeys(JOINTS, 1.0) | images

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        return action

    def disconnect(self) -> None: ...


CAMERA_ARM = '''
import time

import numpy as np

from robots.base import Observation
from robots.spec import RobotSpec


class Arm:
    """A robot with a camera, of whatever policy."""

    simulated = True

    def __init__(self, manifest):
        m = manifest
        sensors, motors = len(m.observation_names), len(m.action_names)
        self.shape = (*m.vision.image[1:], 3)
        self.spec = RobotSpec(
            "camera-arm", m.observation_names, m.observation_units, (-9.0,) * sensors, (9.0,) * sensors,
            m.action_names, m.action_units, m.action_low, m.action_high, (None,) * motors, (None,) * motors,
            (0.0,) * motors, m.control_rate_hz,
        )

    def connect(self): ...
    def prepare(self, seed): ...
    def observe(self):
        values = np.zeros(self.spec.observation_size)
        return Observation(values, time.monotonic_ns(), images={"front": np.zeros(self.shape, np.uint8)})
    def act(self, action):
        return action
    def stop(self, reason): ...
    def close(self): ...
'''


MY_ENVS = """
import gymnasium

gymnasium.register("MyTask-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=50)
"""


def decide(path: Path) -> None:
    """Replace every mark of a spec, as a person would."""
    spec = json.loads(path.read_text())
    answers = {"observation_low": -100.0, "observation_high": 100.0, "action_rate": 50.0, "action_acceleration": None}
    for key, value in spec.items():
        if isinstance(value, list):
            spec[key] = [answers[key] if is_marked(each) else each for each in value]
    path.write_text(json.dumps(spec))


def provide(name: str) -> None:
    """Put one of them into the working folder."""
    here = Path()
    if name == "arm.onnx":
        make_policy(here / name, ("shoulder", "elbow"), ("rad",) * 2, ("rad/s",) * 2, 1.0, 50.0)
    elif name == "so101.onnx":
        make_policy(here / name, JOINTS, ("%",) * 5, ("%",) * 5, 100.0, 30.0)
        module = types.ModuleType("lerobot.robots.so_follower")
        module.SO101Follower = SO101Follower  # type: ignore[attr-defined]
        for package in ("lerobot", "lerobot.robots"):
            sys.modules.setdefault(package, types.ModuleType(package))
        sys.modules["lerobot.robots"].RobotConfig = RobotConfig  # type: ignore[attr-defined]
        sys.modules["lerobot.robots"].make_robot_from_config = SO101Follower  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
    elif name == "my_robot.py":
        (here / name).write_text(CAMERA_ARM)
    elif name == "my_envs.py":
        (here / name).write_text(MY_ENVS)
    elif name == "MODEL":
        save_model(here / name, bins=32)
    else:
        raise KeyError(name)


def needed(line: str) -> list[str]:
    """Which of them a line names."""
    names = {
        r"\bmy_envs:": "my_envs.py",
        r"\barm\.onnx": "arm.onnx",
        r"\bso101\.onnx": "so101.onnx",
        "my_robot:": "my_robot.py",
        "=MODEL": "MODEL",
    }
    return [name for pattern, name in names.items() if re.search(pattern, line)]
