"""Checkpoint → artifact. Nothing is written unless torch, ONNX Runtime and every check of the robot agree."""

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import onnx
import onnxruntime
from onnx import ModelProto

from deploy.export import graph, parity
from deploy.export.probes import Run, golden_vectors
from deploy.export.quantize import quantise
from deploy.runtime.acting import OUTPUTS
from deploy.runtime.check import DIGEST_KEY, MANIFEST_KEY, digest
from deploy.runtime.compare import shift
from deploy.runtime.identity import policy_id
from deploy.runtime.inference import new_session, rows_at_once, run
from deploy.runtime.manifest import Golden, Manifest
from deploy.runtime.onnx_file import read_model
from deploy.runtime.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.common.checkpoint_head import CheckpointHead
from gipo.common.errors import UserError
from gipo.common.files import PathLike, write_bytes
from gipo.policies import GaussianPolicy, Policy, TokenPolicy


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was found to equal the checkpoint."""

    policy_id: str
    manifest: Manifest
    parity: parity.Parity
    size: int


def export(
    checkpoint: PathLike,
    out: PathLike,
    rate: float | None = None,
    quantize: str | None = None,
    observations: int = 1000,
    seed: int = 0,
) -> Exported:
    """Export a checkpoint to one ONNX file.

    Args:
        checkpoint: a checkpoint of `gipo`.
        out: the file to write; it appears whole or not at all.
        rate: control rate, Hz, where the checkpoint does not say.
        quantize: `dynamic` for int8 matrix products, None for float32.
        observations: random observations of the parity check.
        seed: of those observations and of the golden vectors; the same inputs give the same file.

    Raises:
        UserError: when the checkpoint is unusable, or any check fails; nothing is written then.
    """
    if quantize not in (None, "dynamic"):
        raise UserError(f"--quantize is {quantize!r}; it must be dynamic, or left out")
    loaded = load_checkpoint(checkpoint)
    head, policy = CheckpointHead.of(loaded), policy_from(loaded)
    interface = _interface(head, policy, rate)
    model = graph.trace(policy)
    asked = parity.probe(policy, observations, seed)
    answers = _runtime(model, "float32", policy)(asked.observation, asked.noise)
    agreed = parity.compare(policy, asked, answers)
    report, reference = None, parity.torch_run(policy)
    if quantize:
        model = quantise(model)
        reference = _runtime(model, "int8", policy)
        report = shift(_family(policy), answers, reference(asked.observation, asked.noise))
    manifest = _manifest(head, policy, interface, golden_vectors(policy, reference, seed + 1), agreed.rounding, report)
    data = assemble(model, manifest)
    OnnxPolicy.from_bytes(data)  # every check of the robot, golden vectors included
    write_bytes(data, out)
    return Exported(policy_id(data), manifest, agreed, len(data))


def assemble(model: ModelProto, manifest: Manifest) -> bytes:
    """The bytes of an artifact: the graph, the manifest, and the digest of both."""
    model = ModelProto.FromString(model.SerializeToString())
    onnx.helper.set_model_props(model, {MANIFEST_KEY: manifest.to_json(), DIGEST_KEY: "0" * 64})
    data = model.SerializeToString(deterministic=True)
    span = read_model(data).entries[DIGEST_KEY]
    return data[: span.start] + digest(data, span).encode() + data[span.stop :]


def _runtime(model: ModelProto, precision: str, policy: Policy) -> Run:
    session, layout = new_session(model.SerializeToString()), graph.layout_of(policy)
    most = rows_at_once(precision, layout)
    return lambda observation, noise: dict(
        zip(OUTPUTS, run(session, OUTPUTS, observation, noise, most, layout), strict=True)
    )


def _family(policy: Policy) -> str:
    if isinstance(policy, TokenPolicy):
        return "token"
    if isinstance(policy, GaussianPolicy):
        return "gaussian"
    raise UserError(f"{type(policy).__name__} is neither a TokenPolicy nor a GaussianPolicy; derive it from one")


def _interface(head: CheckpointHead, policy: Policy, rate: float | None) -> dict[str, Any]:
    """Names, units and rate: from the checkpoint, or generic names and the rate that was asked for."""
    found = head.interface or {}
    known = found.get("control_rate_hz")
    hertz = rate if known is None else known
    if hertz is None:
        what = "says no control rate" if found else "names no interface: neither names, units nor control rate"
        raise UserError(
            f"the checkpoint {what}; name the rate with --rate HZ (names that it lacks become observation.0, action.0 "
            "and so on, of unspecified unit)"
        )
    if known is not None and rate is not None and float(known) != rate:
        raise UserError(f"--rate is {rate} Hz, but the policy was trained at {known} Hz; leave --rate out")
    if not hertz > 0:
        raise UserError(f"the control rate is {hertz} Hz; it must be above 0")
    interface: dict[str, Any] = {"control_rate_hz": float(hertz)}
    for name, size in (("observation", policy.spaces.observation_size), ("action", policy.action_size)):
        names = tuple(found.get(f"{name}_names") or (f"{name}.{i}" for i in range(size)))
        units = tuple(found.get(f"{name}_units") or ["unspecified"] * size)
        if len(names) != size or len(units) != size:
            raise UserError(
                f"the checkpoint lists {len(names)} names and {len(units)} units of the {name}; the policy has {size}"
            )
        interface |= {f"{name}_names": names, f"{name}_units": units}
    return interface


def _manifest(
    head: CheckpointHead,
    policy: Policy,
    interface: dict[str, Any],
    golden: Golden,
    rounding: float,
    quantisation: dict[str, float] | None,
) -> Manifest:
    return Manifest(
        family=_family(policy),
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
