"""What a manifest says of a checkpoint's policy: its interface, where it comes from, and how exact it is."""

import hashlib
import json
from importlib import metadata
from typing import Any

import onnxruntime

from deploy.export import graph
from deploy.runtime.manifest import Golden, Manifest
from gipo.common.checkpoint_head import CheckpointHead
from gipo.common.errors import UserError
from gipo.policies import GaussianPolicy, Policy, TokenPolicy
from robots.spec import UNSPECIFIED, RobotSpec

NAMES = ("observation_names", "observation_units", "action_names", "action_units", "control_rate_hz")


def family_of(policy: Policy) -> str:
    """`token` or `gaussian`.

    Raises:
        UserError: when it is of neither family.
    """
    if isinstance(policy, TokenPolicy):
        return "token"
    if isinstance(policy, GaussianPolicy):
        return "gaussian"
    raise UserError(f"{type(policy).__name__} is neither a TokenPolicy nor a GaussianPolicy; derive it from one")


def interface_of(
    head: CheckpointHead, policy: Policy, rate: float | None, robot: RobotSpec | None = None
) -> dict[str, Any]:
    """Names, units and rate: from the checkpoint, else of the robot, else generic names and the rate asked for.

    Raises:
        UserError: when the rate is unknown, or what the checkpoint says does not fit the policy.
    """
    found = {} if robot is None else _said_by(robot, policy)
    found |= {name: said for name, said in (head.interface or {}).items() if said is not None}
    known = found.get("control_rate_hz")
    hertz = rate if known is None else known
    if hertz is None:
        what = "says no control rate" if found else "names no interface: neither names, units nor control rate"
        raise UserError(
            f"the checkpoint {what}; name the rate with --rate HZ (names that it lacks become observation.0, action.0 "
            "and so on, of unspecified unit), or the robot with --spec FILE, whose names, units and rate it then takes"
        )
    if known is not None and rate is not None and float(known) != rate:
        raise UserError(f"--rate is {rate} Hz, but the policy was trained at {known} Hz; leave --rate out")
    if not hertz > 0:
        raise UserError(f"the control rate is {hertz} Hz; it must be above 0")
    interface: dict[str, Any] = {"control_rate_hz": float(hertz)}
    for name, size in (("observation", policy.spaces.observation_size), ("action", policy.action_size)):
        names = tuple(found.get(f"{name}_names") or (f"{name}.{i}" for i in range(size)))
        units = tuple(found.get(f"{name}_units") or [UNSPECIFIED] * size)
        if len(names) != size or len(units) != size:
            raise UserError(
                f"the checkpoint lists {len(names)} names and {len(units)} units of the {name}; the policy has {size}"
            )
        interface |= {f"{name}_names": names, f"{name}_units": units}
    return interface


def _said_by(robot: RobotSpec, policy: Policy) -> dict[str, Any]:
    """Names, units and rate of a robot with as many sensors and motors as the policy has numbers."""
    sizes = robot.observation_size, robot.action_size
    if sizes != (policy.spaces.observation_size, policy.action_size):
        raise UserError(
            f"the robot {robot.name!r} of --spec has {sizes[0]} observations and {sizes[1]} actions; the policy has "
            f"{policy.spaces.observation_size} and {policy.action_size}"
        )
    return {name: getattr(robot, name) for name in NAMES}


def manifest_of(
    head: CheckpointHead,
    policy: Policy,
    interface: dict[str, Any],
    golden: Golden,
    rounding: float,
    quantisation: dict[str, float] | None = None,
) -> Manifest:
    """The manifest of a checkpoint's policy, whose `interface` is that of `interface_of`."""
    return Manifest(
        family=family_of(policy),
        parameters_per_dimension=policy.parameters_per_dimension,
        **interface,
        action_low=tuple(policy.action_low.tolist()),
        action_high=tuple(policy.action_high.tolist()),
        policy_version=int(policy.version),
        checkpoint=head.id,
        parent=head.parent,
        task=head.task or "",
        frames=head.frames,
        config_hash=_config_hash(head),
        precision="int8" if quantisation else "float32",
        rounding=rounding,
        normaliser=graph.normaliser_of(policy),
        quantisation=quantisation,
        versions=_versions(),
        policy=json.loads(json.dumps(policy.description())),
        golden=golden,
        vision=graph.layout_of(policy).vision,
    )


def _config_hash(head: CheckpointHead) -> str:
    """SHA-256 of the training configuration, or of the policy's description where the checkpoint does not say."""
    text = json.dumps(head.policy, sort_keys=True, default=str)
    return head.config_hash or hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"onnxruntime": onnxruntime.__version__}
    for package in ("gipo", "torch", "onnx", "onnxscript", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"  # run from a source tree
    return versions
