"""Artifacts of random policies, exported as training's are. Needs torch; nothing under test does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch

from deploy.export.artifact import assemble, export
from deploy.runtime.check import check_file
from gipo.common.simulators import metaworld
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy
from robots.cli import main

SAWYER = metaworld.interface()


def make_artifact(path: Path, family: str = "token", seed: int = 0) -> Path:
    """A policy for the simulated Sawyer, with weights of `seed`."""
    torch.manual_seed(seed)
    kind: type[Policy] = {"token": TokenPolicy, "gaussian": GaussianPolicy}[family]
    spaces = Spaces(len(metaworld.OBSERVATIONS), (-1.0,) * 4, (1.0,) * 4)
    policy = kind(spaces, network=lambda i, o: SeparateNetworks(i, o, hidden=(64, 64)))
    with torch.no_grad():
        policy.network.actor[-1].weight *= 30.0  # type: ignore[index,operator]
    if policy.normaliser is not None:
        policy.normaliser.update(torch.randn(500, spaces.observation_size) * 0.2)
    policy.version.fill_(7)
    recorded = {"format": 1, "policy": policy.description(), "task": "reach-v3", "interface": SAWYER}
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    checkpoint = path.with_suffix(".ckpt")
    torch.save({"gipo": recorded, "state_dict": weights}, checkpoint)
    export(checkpoint, path)
    return path


def changed(artifact: Path, path: Path, **changes: Any) -> Path:
    """The same graph under another manifest."""
    path.write_bytes(assemble(onnx.load(artifact), replace(check_file(artifact).manifest, **changes)))
    return path


def without_names(artifact: Path, path: Path) -> Path:
    """The same policy as an export names it whose checkpoint recorded no interface."""
    observations, actions = len(metaworld.OBSERVATIONS), len(metaworld.ACTIONS)
    return changed(
        artifact,
        path,
        observation_names=tuple(f"observation.{i}" for i in range(observations)),
        observation_units=("unspecified",) * observations,
        action_names=tuple(f"action.{i}" for i in range(actions)),
        action_units=("unspecified",) * actions,
    )


def write_artifacts(folder: Path) -> None:
    """Two versions of a token policy, a gaussian one, and one without names."""
    token = make_artifact(folder / "token.onnx")
    changed(token, folder / "newer.onnx", policy_version=8)
    make_artifact(folder / "gaussian.onnx", "gaussian", seed=1)
    without_names(token, folder / "numbered.onnx")


def write_session(policies: Path, folder: Path) -> Path:
    """A log of three episodes of the simulated arm, with a shadow policy."""
    command = ["run", "--policy", str(policies / "token.onnx"), "--shadow", str(policies / "newer.onnx")]
    assert main([*command, "--log", str(folder), "--episodes", "3", "--steps", "60", "--speed", "20"]) == 0
    (path,) = folder.glob("*.mcap")
    return path
