"""A robot of the size of `Tiny-v0`, a policy of it that training saved, logs of what it did, and demonstrations."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.export.artifact import export
from deploy.runtime.policy import OnnxPolicy
from gipo.networks import SeparateNetworks
from gipo.policies import Policy, Spaces, TokenPolicy
from robots.spec import RobotSpec
from tests.datamodules.ingest.builders import Change, write_log
from tests.robots.builders import make_spec
from tests.trained import Trained, save_policy

BINS, HIDDEN, SENSORS, D = 8, 16, 3, 2
SPACES = Spaces(SENSORS, (-1.0,) * D, (1.0,) * D)
SMALL = {
    "seed_everything": 7,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",  # whatever the processor is
    "checkpoint.every": 1,
    "data_module": "OfflineDataModule",
    "data.iterations": 4,
    "data.rounds": 2,
    "data.batch": 32,
    "data.min_ess": 0,
    "data.ingest.workers": 1,
}


def arm(**changes: Any) -> RobotSpec:
    """Three sensors, two actions, no limits but bounds."""
    values: dict[str, Any] = {
        "observation_names": tuple(f"s{i}" for i in range(SENSORS)),
        "observation_units": ("m",) * SENSORS,
        "observation_low": (-10.0,) * SENSORS,
        "observation_high": (10.0,) * SENSORS,
        "action_names": ("x", "y"),
        "action_units": ("1",) * D,
        "action_low": (-1.0,) * D,
        "action_high": (1.0,) * D,
        "action_rate": (None,) * D,
        "action_acceleration": (None,) * D,
        "action_hold": (0.0,) * D,
    }
    return make_spec(**{**values, **changes})


def make_policy(kind: type[Policy] = TokenPolicy, seed: int = 0, version: int = 7, gain: float = 30.0) -> Policy:
    """Random weights, moments of its own, and preferences for some actions that grow with `gain`."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"bins": BINS} if kind is TokenPolicy else {}
    policy = kind(SPACES, network=lambda i, o: SeparateNetworks(i, o, hidden=(HIDDEN,)), **options)
    with torch.no_grad():
        policy.network.actor[-1].weight *= gain  # type: ignore[index,operator]
    assert policy.normaliser is not None
    policy.normaliser.update(torch.randn(500, SENSORS) * 1.5 + 0.3)
    policy.version.fill_(version)
    return policy


def save(policy: Policy, path: Path, **recorded: Any) -> Path:
    """A checkpoint as `gipo fit` writes it, without what only a resumed run needs."""
    spec = arm()
    keys = ("observation_names", "observation_units", "action_names", "action_units")
    interface = {key: list(getattr(spec, key)) for key in keys} | {"control_rate_hz": spec.control_rate_hz}
    return save_policy(policy, path, **{"task": "fake", "interface": interface} | recorded)


class Robot(Trained):
    """The folder of such a robot."""

    def log(self, path: Path, steps: Sequence[int], seed: int, change: Change = lambda episode, rows: None) -> Path:
        """Another log of its policy."""
        return write_log(path, [OnnxPolicy.load(self.artifact)], steps, seed, arm(), change)


def make_robot(folder: Path, kind: type[Policy] = TokenPolicy, steps: Sequence[int] = (30, 24, 36)) -> Robot:
    """The policy, exported, and two logs of it."""
    folder.mkdir(parents=True, exist_ok=True)
    robot = Robot(folder)
    save(make_policy(kind), robot.checkpoint)
    export(robot.checkpoint, robot.artifact, observations=16)
    for seed, path in enumerate(robot.logs):
        robot.log(path, steps, seed)
    return robot


def fit_args(folder: Path, *logs: Path, command: str = "fit", **options: object) -> list[str]:
    """Arguments of a small offline run in `folder`; options override, `__` standing for the dot, None leaving out."""
    config = {"config": options.pop("config", None)}  # first, because what comes later overrides it
    chosen = config | SMALL | {name.replace("__", "."): value for name, value in options.items()}
    chosen |= {"trainer.default_root_dir": folder, "data.logs": json.dumps([str(log) for log in logs])}
    return [command, *(f"--{name}={value}" for name, value in chosen.items() if value is not None)]


def post_train_args(folder: Path, robot: Robot, **options: object) -> list[str]:
    """Arguments of a small post-training of the robot's policy on its logs."""
    return fit_args(folder, *robot.logs, **{"model__init_from": robot.checkpoint, **options})


def write_demonstrations(
    folder: Path, script: Callable[[np.ndarray], np.ndarray], episodes: int = 12, steps: int = 40
) -> Path:
    """A LeRobot v3 dataset of somebody who acts by `script` [T, O] → [T, D]; no log-probs, no bounds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = episodes * steps
    seen = np.random.default_rng(0).uniform(-1, 1, (total, SENSORS)).astype(np.float32)
    columns: dict[str, np.ndarray] = {
        "observation.state": seen,
        "action": script(seen).astype(np.float32),
        "frame_index": np.tile(np.arange(steps), episodes),
        "timestamp": np.tile(np.arange(steps), episodes).astype(np.float32) / 80,
        "episode_index": np.repeat(np.arange(episodes), steps),
    }
    (folder / "data" / "chunk-000").mkdir(parents=True)
    table = pa.table({name: pa.array(list(values)) for name, values in columns.items()})
    pq.write_table(table, folder / "data" / "chunk-000" / "file-000.parquet")
    names = {"observation.state": [f"s{i}" for i in range(SENSORS)], "action": ["x", "y"]}
    features = {key: {"dtype": "float32", "shape": [len(each)], "names": each} for key, each in names.items()}
    info = {
        "codebase_version": "v3.0", "fps": 80, "total_frames": total, "total_episodes": episodes, "features": features,
    }  # fmt: skip
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


BOUNDS: dict[str, object] = {"data__action_low": "[-1,-1]", "data__action_high": "[1,1]"}
