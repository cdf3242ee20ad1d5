"""Policies with random weights, and checkpoints as training writes them."""

from pathlib import Path
from typing import Any

import torch

from deploy.export.artifact import export
from gipo.networks import ActorCritic, SeparateNetworks, SharedEncoder
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy
from robots.spec import RobotSpec

OBSERVATIONS, ACTIONS, RATE = 39, 4, 80.0
INTERFACE = {
    "observation_names": [f"sensor.{i}" for i in range(OBSERVATIONS)],
    "observation_units": ["m"] * OBSERVATIONS,
    "action_names": ["x", "y", "z", "gripper"],
    "action_units": ["1"] * ACTIONS,
    "control_rate_hz": RATE,
}
KINDS = ["token-separate", "token-shared", "gaussian-separate", "gaussian-shared"]


def make_policy(kind: str, gain: float = 30.0, **arguments: Any) -> Policy:
    """A policy whose distribution depends on the observation; `gain` scales its near-zero last layer."""
    family, body = kind.split("-")
    classes: dict[str, type[Policy]] = {"token": TokenPolicy, "gaussian": GaussianPolicy}
    bodies: dict[str, type[ActorCritic]] = {"separate": SeparateNetworks, "shared": SharedEncoder}
    torch.manual_seed(len(kind))
    policy = classes[family](
        Spaces(OBSERVATIONS, (-1.0,) * ACTIONS, (1.0,) * ACTIONS), network=bodies[body], **arguments
    )
    with torch.no_grad():
        policy.network.actor[-1].weight *= gain if body == "separate" else 1.0  # type: ignore[index,operator]
        for parameter in policy.network.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    if policy.normaliser is not None:
        scale, shift = torch.rand(OBSERVATIONS) * 3, torch.randn(OBSERVATIONS)
        policy.normaliser.update(torch.randn(2000, OBSERVATIONS) * scale + shift)
    policy.version.fill_(7)
    return policy.eval()


def save(policy: Policy, path: Path, **recorded: Any) -> Path:
    """Write `policy` as a training checkpoint; None removes an entry."""
    entries = {"format": 1, "policy": policy.description(), "task": "reach-v3", "frames": 1000, "interface": INTERFACE}
    entries = {key: value for key, value in {**entries, **recorded}.items() if value is not None}
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    torch.save({"gipo": entries, "state_dict": weights}, path)
    return path


def small_policy() -> Policy:
    """A token policy of 32 hidden units for 5 observations and 2 actions."""
    spaces = Spaces(5, (-1.0, 0.0), (1.0, 2.0))
    torch.manual_seed(3)
    policy = TokenPolicy(spaces, bins=16, network=lambda i, o: SeparateNetworks(i, o, hidden=(32, 32)))
    with torch.no_grad():
        policy.network.actor[-1].weight *= 100.0  # type: ignore[index,operator]
    assert policy.normaliser is not None
    policy.normaliser.update(torch.randn(500, 5) * torch.tensor([0.1, 1.0, 2.0, 5.0, 9.0]) + 1)
    return policy


def small_robot() -> RobotSpec:
    """A robot that the small policy could drive, with names of its own."""
    return RobotSpec(
        name="arm", observation_names=tuple("abcde"), observation_units=("rad",) * 5, observation_low=(-9.0,) * 5,
        observation_high=(9.0,) * 5, action_names=("p", "q"), action_units=("rad/s", "m/s"), action_low=(-1.0, 0.0),
        action_high=(1.0, 2.0), action_rate=(None,) * 2, action_acceleration=(None,) * 2, action_hold=(0.0,) * 2,
        control_rate_hz=50.0,
    )  # fmt: skip


def write_artifacts(folder: Path) -> None:
    """`small.ckpt` and `small.onnx`, 50 Hz and without names."""
    checkpoint = save(small_policy(), folder / "small.ckpt", interface=None)
    export(checkpoint, folder / "small.onnx", rate=50.0)
