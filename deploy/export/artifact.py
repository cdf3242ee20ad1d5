"""Checkpoint → artifact. Nothing is written unless torch, ONNX Runtime and every check of the robot agree."""

from dataclasses import dataclass

import onnx
from onnx import ModelProto

from deploy.export import graph, parity
from deploy.export.description import family_of, interface_of, manifest_of
from deploy.export.probes import Run, golden_vectors
from deploy.export.quantize import quantise
from deploy.runtime.acting import OUTPUTS
from deploy.runtime.check import DIGEST_KEY, MANIFEST_KEY, digest, refuse_large
from deploy.runtime.compare import Outputs, shift
from deploy.runtime.identity import policy_id
from deploy.runtime.inference import new_session, rows_at_once, run
from deploy.runtime.manifest import Manifest
from deploy.runtime.onnx_file import read_model
from deploy.runtime.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.common.checkpoint_head import CheckpointHead
from gipo.common.errors import UserError
from gipo.common.files import PathLike, write_bytes
from gipo.policies import Policy
from robots.spec import RobotSpec


@dataclass(frozen=True)
class Exported:
    """What was written, and how it was found to equal the checkpoint."""

    policy_id: str
    manifest: Manifest
    parity: parity.Parity
    size: int


def export(
    checkpoint: PathLike, out: PathLike, rate: float | None = None, quantize: str | None = None,
    observations: int = 1000, seed: int = 0, robot: RobotSpec | None = None,
) -> Exported:  # fmt: skip
    """Export a checkpoint to one ONNX file.

    Args:
        checkpoint: a checkpoint of `gipo`.
        out: the file to write; it appears whole or not at all.
        rate: control rate, Hz, where the checkpoint does not say.
        quantize: `dynamic` for int8 matrix products, None for float32.
        observations: random observations of the parity check; fewer where each holds large images.
        seed: of those observations and of the golden vectors; the same inputs give the same file.
        robot: that the policy is for; its names, units and rate are the policy's where the checkpoint does not say.

    Raises:
        UserError: when the checkpoint is unusable, or any check fails; nothing is written then.
    """
    if quantize not in (None, "dynamic"):
        raise UserError(f"--quantize is {quantize!r}; it must be dynamic, or left out")
    loaded = load_checkpoint(checkpoint)
    head, policy = CheckpointHead.of(loaded), policy_from(loaded)
    interface = interface_of(head, policy, rate, robot)
    model = graph.trace(policy)
    refuse_large(model.ByteSize() // (4 if quantize else 1))
    asked = parity.probe(policy, observations, seed)
    answers = _runtime(model, "float32", policy)(asked.observation, asked.noise)
    agreed = parity.compare(policy, asked, answers)
    report, reference = None, parity.torch_run(policy)
    if quantize:
        model, reference, report = _quantised(model, policy, asked, answers)
    golden = golden_vectors(policy, reference, seed + 1)
    manifest = manifest_of(head, policy, interface, golden, agreed.rounding, report)
    if robot is not None:
        robot.check(manifest)
    data = assemble(model, manifest)
    OnnxPolicy.from_bytes(data)  # every check of the robot, golden vectors included
    write_bytes(data, out)
    return Exported(policy_id(data), manifest, agreed, len(data))


def _quantised(
    model: ModelProto, policy: Policy, asked: parity.Probe, answers: Outputs
) -> tuple[ModelProto, Run, dict[str, float]]:
    """A graph with int8 products, what runs it, and how far its answers are from those of the whole one."""
    small = quantise(model)
    runtime = _runtime(small, "int8", policy)
    return small, runtime, shift(family_of(policy), answers, runtime(asked.observation, asked.noise))


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
