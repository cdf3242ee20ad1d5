"""The checks an artifact passes before ONNX Runtime sees a byte of it.

Each check is one function that returns what it found, as text for a person, or raises UserError.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from deploy.runtime.identity import policy_id, refuse_other
from deploy.runtime.manifest import Manifest
from deploy.runtime.normaliser import MEAN, SCALE, normaliser_hash
from deploy.runtime.onnx_file import Model, Value, read_model
from gipo.common.errors import UserError
from gipo.common.files import PathLike
from gipo.common.reading import read_bytes

MAX_BYTES = 256 << 20  # of an artifact
OPSET = 20  # of the default domain; what the exporter writes and ONNX Runtime ≥ 1.20 runs
IR_VERSIONS = range(8, 11)
MAX_NODES = 1_000
MANIFEST_KEY = "gipo.manifest"
OTHERS = {  # files of this package that are given in place of an artifact, by how they begin
    b"PK\3\4": "a checkpoint or another ZIP file; gipo-deploy export makes an artifact of a checkpoint",
    b"\x89MCAP0": "a log",
}
DIGEST_KEY = "gipo.digest"  # SHA-256 of the file in which these 64 digits are zeros

# What networks are made of: pure functions of their inputs. No control flow, no randomness of the graph's own, no
# tensor made from a mere size (ConstantOfShape, Expand, Tile, Range).
_OPERATORS = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Clip Concat Conv Cos CumSum DequantizeLinear Div
    DynamicQuantizeLinear Elu Equal Erf Exp Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max MaxPool Min Mish Mul Neg Not Or PRelu Pow
    QuantizeLinear ReduceMax ReduceMean ReduceMin ReduceSum Reciprocal Relu Reshape Selu Shape Sigmoid Sign Sin Slice
    Softmax Softplus Split Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where
"""
OPERATORS = frozenset(_OPERATORS.split())

Report = Callable[[str, str], None]


@dataclass(frozen=True)
class Artifact:
    """A file that passed every check that needs no inference."""

    data: bytes
    policy_id: str
    manifest: Manifest
    model: Model


def silent(name: str, found: str) -> None:
    """The report of a caller who wants none."""


def check_file(path: PathLike, require_id: str | None = None, report: Report = silent) -> Artifact:
    """Read and check a file; `report(name, found)` is called after each check that passes.

    Raises:
        UserError: at the first check that fails.
    """
    data = read_bytes(path, MAX_BYTES, links=False)
    report("file", f"{path}, {len(data):,} bytes")
    with naming(path):
        return check_bytes(data, require_id, report)


@contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Have a refusal begin with the file's name: a command may be given two."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{os.fspath(path)}: {error}") from error


def check_bytes(data: bytes, require_id: str | None = None, report: Report = silent) -> Artifact:
    """Check an artifact that is in memory, as `check_file` does with a file."""
    refuse_large(len(data))
    if other := next((words for magic, words in OTHERS.items() if data.startswith(magic)), None):
        raise UserError(f"this file is no exported policy, but {other}")
    identity = policy_id(data)
    refuse_other(identity, require_id, "this file is")
    report("identity", f"{identity}{', as required' if require_id is not None else ''}")
    model = read_model(data)
    report("structure", f"{len(model.nodes)} nodes, {len(model.weights)} weights, all in this file")
    report("digest", _digest(data, model))
    report("opset", _opset(model))
    report("operators", _operators(model))
    report("weights", _weights(model))
    manifest = Manifest.from_json(_metadata(model, MANIFEST_KEY))
    report("manifest", f"schema {manifest.schema}, {manifest.family} policy, version {manifest.policy_version}")
    report("inputs", _values("input", model.inputs, _inputs(manifest)))
    report("outputs", _values("output", model.outputs, _outputs(manifest)))
    report("normaliser", _normaliser(model, manifest))
    return Artifact(data, identity, manifest, model)


def refuse_large(size: int) -> None:
    """Refuse an artifact of more than MAX_BYTES.

    Raises:
        UserError: saying which way is left.
    """
    if size > MAX_BYTES:
        raise UserError(
            f"the policy has {size:,} bytes, more than the {MAX_BYTES:,} of an artifact; train a smaller network, or "
            "serve its checkpoint (gipo-deploy serve)"
        )


def digest(data: bytes, span: slice) -> str:
    """SHA-256 of the file with the bytes of `span` as zeros: the digest can then stand in the file itself."""
    total = hashlib.sha256(memoryview(data)[: span.start])
    total.update(b"0" * (span.stop - span.start))
    total.update(memoryview(data)[span.stop :])
    return total.hexdigest()


def _digest(data: bytes, model: Model) -> str:
    if _metadata(model, DIGEST_KEY) != digest(data, model.entries[DIGEST_KEY]):
        raise UserError("the file's bytes do not match its digest: it was damaged or edited; copy it again")
    return "the bytes match the digest that the exporter wrote"


def _opset(model: Model) -> str:
    if model.opsets != {"": OPSET}:
        found = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opsets.items()) or "none"
        raise UserError(
            f"the file uses opset {found[:200]} (IR version {model.ir_version}); this gipo runs ai.onnx {OPSET}, "
            "export the policy again"
        )
    if model.ir_version not in IR_VERSIONS:
        raise UserError(
            f"the file has IR version {model.ir_version} (opset ai.onnx {OPSET}), this gipo reads IR versions "
            f"{IR_VERSIONS.start} to {IR_VERSIONS.stop - 1}; export the policy again with this gipo"
        )
    return f"ai.onnx {OPSET}, IR version {model.ir_version}"


def _operators(model: Model) -> str:
    if not 0 < len(model.nodes) <= MAX_NODES:
        raise UserError(f"the graph has {len(model.nodes)} nodes; a policy has 1 to {MAX_NODES}")
    depends = {value.name for value in model.inputs}
    for node in model.nodes:
        if node.domain:
            raise UserError(f"{node.where} is the custom operator {node.domain[:60]}::{node.operator[:60]}")
        if node.operator not in OPERATORS:
            raise UserError(f"{node.where} is the operator {node.operator[:60]!r}, which a policy may not use")
        # The exporter leaves no constant expression; ONNX Runtime would compute one while loading, in any size.
        if depends.isdisjoint(filter(None, node.inputs)):  # an input that is left out has the empty name
            raise UserError(f"{node.where}, {node.operator}, does not depend on the observation or the noise")
        depends.update(node.outputs)
    return f"{len({node.operator for node in model.nodes})} kinds, no custom ones"


def _weights(model: Model) -> str:
    for name, array in model.weights.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"weight {name[:60]!r} is not finite; train or export the policy again")
    held = sum(array.size for array in model.weights.values())
    used = sum(model.weights[name].size for node in model.nodes for name in node.inputs if name in model.weights)
    # A small file must not keep a robot busy; of other ways there is an end to the time that golden vectors may take.
    if used > 4 * held + 1_000_000:
        raise UserError(f"the graph uses its {held:,} weights {used / held:.0f} times over; a policy does not")
    return f"{held:,} numbers, all finite"


def _metadata(model: Model, key: str) -> str:
    if key not in model.metadata:
        raise UserError(f"the file has no metadata {key!r}; it was not written by `gipo-deploy export`")
    return model.metadata[key]


def _inputs(m: Manifest) -> list[Value]:
    seen: list[Value] = []
    if m.vision is not None:
        seen = [
            Value("image", 2, ("batch", *m.vision.image_shape)),
            Value("instruction", 7, ("batch", m.vision.instruction_bytes)),
        ]
    return [
        Value("observation", 1, ("batch", m.observation_size)),
        *seen,
        Value("noise", 1, ("batch", *m.layout.decision)),
    ]


def _outputs(m: Manifest) -> list[Value]:
    actions: tuple[int | str, ...] = ("batch", *m.layout.decision)
    return [
        Value("action", 1, actions),
        Value("deterministic_action", 1, actions),
        Value("latent", 7 if m.family == "token" else 1, actions),
        Value("log_prob", 1, actions),
        Value("params", 1, (*actions, m.parameters_per_dimension)),
    ]


def _values(kind: str, found: list[Value], expected: list[Value]) -> str:
    if [value.name for value in found] != [value.name for value in expected]:
        names = ", ".join(value.name[:60] for value in found[:8]) or "none"
        raise UserError(f"the {kind}s are {names}; they must be {', '.join(v.name for v in expected)}")
    for value, wanted in zip(found, expected, strict=True):
        if value.data_type != wanted.data_type:
            raise UserError(f"{kind} {value.name!r} has ONNX data type {value.data_type}, not {wanted.data_type}")
        if value.shape != wanted.shape:
            raise UserError(f"{kind} {value.name!r} has shape {value.shape}, the manifest says {wanted.shape}")
    return ", ".join(f"{value.name} {list(value.shape)}".replace("'", "") for value in found)


def _normaliser(model: Model, manifest: Manifest) -> str:
    normaliser = manifest.normaliser
    if normaliser is None:
        return "none"
    mean, scale = model.weights.get(MEAN), model.weights.get(SCALE)
    if mean is None or scale is None:
        raise UserError(f"the graph has no weights {MEAN!r} and {SCALE!r}, though the manifest says so")
    found = normaliser_hash(mean, scale)
    listed = normaliser_hash(np.array(normaliser.mean), np.array(normaliser.scale))
    if not found == listed == normaliser.sha256:
        raise UserError(
            f"the normaliser in the graph is {found[:12]}…, the manifest lists {listed[:12]}… "
            f"and names {normaliser.sha256[:12]}…; the file was edited, export the policy again"
        )
    return f"{found[:12]}…, {len(normaliser.mean)} means and scales in the graph as in the manifest"
