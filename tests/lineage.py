"""Checkpoints, artifacts and logs that name each other, made with the real writers; only the learning is made up."""

from pathlib import Path
from typing import Any

import torch

from deploy.export.artifact import export
from deploy.runtime.policy import OnnxPolicy
from gipo.callbacks.checkpoint_io import AtomicCheckpointIO
from gipo.checkpoints import checkpoint_id
from gipo.common.checkpoint_head import CHECKPOINT_FORMAT
from gipo.networks import SeparateNetworks
from gipo.policies import Spaces, TokenPolicy
from robots.log import LogWriter, Session
from tests.robots.builders import make_spec, step_row

SPACES = Spaces(5, (-1.0, -1.0, 0.0), (1.0, 1.0, 1.0))


def make_policy(version: int) -> TokenPolicy:
    torch.manual_seed(version)
    policy = TokenPolicy(SPACES, bins=8, network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)), normalise=False)
    policy.version.fill_(version)
    return policy


def save(path: Path, version: int, **recorded: Any) -> str:
    """A checkpoint as `gipo fit` writes it; its id."""
    policy = make_policy(version)
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    entries = {
        "format": CHECKPOINT_FORMAT,
        "policy": policy.description(),
        "task": "reach-v3",
        "frames": 1000 * version,
    }
    checkpoint = {"gipo": entries | recorded, "state_dict": weights}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    return checkpoint_id(checkpoint)


def put(checkpoint: Path, path: Path) -> str:
    """Export a checkpoint; the policy id."""
    return export(checkpoint, path, rate=80.0, observations=16).policy_id


def record(path: Path, artifact: Path, *beside: Path, steps: int = 3) -> str:
    """A log of a policy that acts, with others beside it; the session."""
    policies = [OnnxPolicy.load(each) for each in (artifact, *beside)]
    # the manifests are not in the order of who acts
    manifests = {policy.policy_id: policy.manifest.to_json() for policy in reversed(policies)}
    session = Session(
        make_spec().to_json(), manifests, identity=path.stem.ljust(32, "0"), created="2026-03-01T12:00:00+00:00"
    )
    writer = LogWriter(path, session)
    writer.event("episode_start", episode=0, data={"policy_id": policies[0].policy_id})
    for index in range(steps):
        writer.step(step_row(index, 5, 3))
    writer.close()
    return session.identity


def learned(*logs: tuple[str, str, int]) -> list[dict[str, Any]]:
    """The entry `logs` of a checkpoint, from (session, policy id, steps)."""
    return [{"session": session, "policy_ids": [policy], "steps": steps} for session, policy, steps in logs]


def make_chain(folder: Path) -> dict[str, str]:
    """Simulation, then two rounds of robot and post-training; ids by name."""
    ids = {"sim": save(folder / "sim" / "last.ckpt", 7)}
    save(folder / "sim" / "best.ckpt", 7)
    ids["first"] = put(folder / "sim" / "last.ckpt", folder / "first.onnx")
    for name in ("aaaa", "bbbb"):
        ids[name] = record(folder / f"{name}.mcap", folder / "first.onnx")
    ids["round1"] = save(
        folder / "round1.ckpt", 17, init_from=ids["sim"], parent=ids["first"],
        logs=learned((ids["bbbb"], ids["first"], 400), (ids["aaaa"], ids["first"], 1200)),
    )  # fmt: skip
    ids["second"] = put(folder / "round1.ckpt", folder / "second.onnx")
    ids["cccc"] = record(folder / "cccc.mcap", folder / "second.onnx", folder / "first.onnx")
    ids["round2"] = save(
        folder / "round2.ckpt", 27, init_from=ids["round1"], parent=ids["second"],
        logs=learned((ids["cccc"], ids["second"], 900), (ids["aaaa"], ids["first"], 100)),
    )  # fmt: skip
    return ids
