"""A toy robot with a camera, a policy that sees, as training saves it, and logs of what it did."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.vla import ToyVLA
from deploy.export.artifact import export
from deploy.runtime.acting import ActingPolicy
from deploy.runtime.policy import OnnxPolicy
from gipo.common.simulators.toy import CAMERA, INSTRUCTION
from gipo.policies import Policy
from gipo.vla.policies import VLAGaussianPolicy, VLATokenPolicy
from gipo.vla.tiny import TinyVLANetworks
from robots.drivers.toy import ToyGap, ToyRobot, cameras_for, make_spec
from robots.log import LogWriter, Session
from robots.loop import ControlLoop
from robots.people.operator import Operator
from robots.session.options import Options
from tests.trained import Trained, save_policy

TASK = ToyVLA(shown="image", max_steps=12)
BINS, WIDTH, RATE = 8, 16, 20.0


def make_policy(seed: int = 0, tokens: bool = True, task: ToyVLA = TASK) -> Policy:
    """Random weights, moments of its own, and preferences for some actions; version 7."""
    torch.manual_seed(seed)
    spaces = task.spaces(task.make(1, 0))

    def network(spaces: Any, outputs: int) -> TinyVLANetworks:
        return TinyVLANetworks(spaces, outputs, WIDTH)

    policy: Policy = (
        VLATokenPolicy(spaces, network=network, bins=BINS) if tokens else VLAGaussianPolicy(spaces, network=network)
    )
    with torch.no_grad():
        policy.network.actor.weight *= 30.0  # type: ignore[operator]
    assert policy.normaliser is not None
    policy.normaliser.update(torch.randn(100, 2) * 0.5)
    policy.version.fill_(7)
    return policy.eval()


def save(policy: Policy, path: Path) -> Path:
    """A checkpoint as `gipo fit` writes it, without what only a resumed run needs."""
    return save_policy(policy, path, task="ToyVLA", interface={**TASK.interface, "control_rate_hz": RATE})


class Seeing(Trained):
    """The folder of the toy robot."""

    def log(
        self,
        path: Path,
        episodes: int = 4,
        seed: int = 0,
        operator: Operator | None = None,
        policy: ActingPolicy | None = None,
        **options: Any,
    ) -> Path:
        """Another log of its policy on the toy robot, in episodes of 12 steps unless `options` say so."""
        policy = policy or OnnxPolicy.load(self.artifact)
        assert policy.manifest.vision is not None
        cameras = policy.manifest.vision.cameras
        robot = ToyRobot(make_spec(policy.manifest), cameras_for(policy.manifest.vision), ToyGap(action_gain=0.8))
        settings: dict[str, Any] = {
            "video": "",
            "steps": TASK.max_steps,
            "engage_seconds": 0.0,
            "speed": 50,
            "deadline": 9999,
        }
        settings |= {"max_age": 9999, "instruction": INSTRUCTION, "camera": cameras or CAMERA} | options
        session = Session(robot.spec.to_json(), {policy.policy_id: policy.manifest.to_json()})
        writer = LogWriter(path, session, video=settings["video"])
        loop = ControlLoop(robot, policy, writer, Options(**settings), operator=operator)
        for episode in range(episodes):
            result = loop.run(episode, seed + episode)
            assert not result.stopped, result.reason
        loop.close()
        assert writer.close().dropped == 0
        return path


def make_seeing(folder: Path, tokens: bool = True, logs: bool = True, task: ToyVLA = TASK) -> Seeing:
    """The policy, exported, and two logs of it unless they are not wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    seeing = Seeing(folder)
    save(make_policy(tokens=tokens, task=task), seeing.checkpoint)
    export(seeing.checkpoint, seeing.artifact, observations=16)
    for seed, path in enumerate(seeing.logs if logs else ()):
        seeing.log(path, seed=100 * seed)
    return seeing


def rows_seen(path: Path, episode: int, camera: str = CAMERA) -> dict[int, np.ndarray]:
    """Step → the pixels that the log of a session holds for it."""
    from robots.log import pixels_of, read_images

    seen = (row for row in read_images(path) if (row["episode"], row["frame_id"]) == (episode, camera))
    return {row["step"]: pixels_of(row) for row in seen}
