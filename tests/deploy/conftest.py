"""Checkpoints as training writes them, from policies with random weights, and the artifacts exported from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.export import Exported, export
from deploy.policy import OnnxPolicy
from gipo.networks import ActorCritic, SeparateNetworks, SharedEncoder
from gipo.policies import GaussianPolicy, Policy, Spaces, TokenPolicy

OBSERVATIONS, ACTIONS, RATE = 39, 4, 80.0
INTERFACE = {
    "observation_names": [f"sensor.{i}" for i in range(OBSERVATIONS)],
    "observation_units": ["m"] * OBSERVATIONS,
    "action_names": ["x", "y", "z", "gripper"],
    "action_units": ["1"] * ACTIONS,
    "control_rate_hz": RATE,
}
KINDS = ["token-separate", "token-shared", "gaussian-separate", "gaussian-shared"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


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


Kit = dict[str, Any]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kit]:
    """Policy, checkpoint, artifact and report of each kind (`KINDS`, and with `-int8`), made once when first asked."""
    made: dict[str, Kit] = {}
    folder = tmp_path_factory.mktemp("artifacts")

    def get(kind: str) -> Kit:
        if kind not in made:
            policy = make_policy(kind.removesuffix("-int8"))
            checkpoint, file = save(policy, folder / f"{kind}.ckpt"), folder / f"{kind}.onnx"
            done: Exported = export(checkpoint, file, quantize="dynamic" if kind.endswith("int8") else None)
            made[kind] = {"policy": policy, "checkpoint": checkpoint, "file": file, "done": done}
        return made[kind]

    return get


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """A small artifact (32 hidden units), for tests that read or damage it many times."""
    folder = tmp_path_factory.mktemp("small")
    spaces = Spaces(5, (-1.0, 0.0), (1.0, 2.0))
    torch.manual_seed(3)
    policy = TokenPolicy(spaces, bins=16, network=lambda i, o: SeparateNetworks(i, o, hidden=(32, 32)))
    with torch.no_grad():
        policy.network.actor[-1].weight *= 100.0  # type: ignore[index,operator]
    assert policy.normaliser is not None
    policy.normaliser.update(torch.randn(500, 5) * torch.tensor([0.1, 1.0, 2.0, 5.0, 9.0]) + 1)
    checkpoint, file = save(policy, folder / "small.ckpt", interface=None), folder / "small.onnx"
    export(checkpoint, file, rate=50.0)
    return {"policy": policy, "checkpoint": checkpoint, "file": file, "loaded": OnnxPolicy.load(file)}
