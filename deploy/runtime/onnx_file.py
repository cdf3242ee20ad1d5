"""Reads the structure of an ONNX file without the onnx package and without running anything.

ONNX Runtime parses whatever it is given, follows external data and runs any operator; so the artifact is read here
first, and only the plain subset that the exporter writes comes through.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from deploy.runtime import onnx_schema as schema
from deploy.runtime.protobuf import Message, Reader
from gipo.common.errors import UserError
from gipo.common.reading import stand_in

MAX_RANK = 8


@dataclass(frozen=True)
class Node:
    """One operator; `where` says which, for messages."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class Value:
    """A graph input or output: ONNX element type and shape, symbolic dimensions by name."""

    name: str
    data_type: int
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Model:
    """What a file holds. `entries` locates each metadata value in the file."""

    ir_version: int
    opsets: dict[str, int]
    nodes: list[Node]
    weights: dict[str, np.ndarray]
    inputs: list[Value]
    outputs: list[Value]
    metadata: dict[str, str]
    entries: dict[str, slice]


def read_model(data: bytes) -> Model:
    """Parse an ONNX file; weights are views of `data`, so that no declared size is ever allocated.

    Raises:
        UserError: when the file is damaged, or holds what no exported policy holds.
    """
    if instead := stand_in(data[:64]):
        raise UserError(f"the file is no artifact: {instead}")
    model = Reader(data).message(slice(0, len(data)), schema.MODEL, "model")
    if not model.holds("graph"):
        raise UserError("the file holds no graph; it is not an ONNX model")
    graph = next(model.each("graph", schema.GRAPH, "graph"))
    metadata = _by_name(model.each("metadata_props", schema.ENTRY, "metadata"), "key", "metadata {!r}")
    if without := [key for key, entry in metadata.items() if not entry.holds("value")]:
        raise UserError(f"metadata {without[0][:60]!r} has no value; the file is damaged or forged")
    opsets = _by_name(model.each("opset_import", schema.OPSET, "opset_import"), "domain", "the opset of domain {!r}")
    weights = _by_name(graph.each("initializer", schema.TENSOR, "weight {}"), "name", "weight {!r}")
    return Model(
        ir_version=model.number("ir_version"),
        opsets={domain: entry.number("version") for domain, entry in opsets.items()},
        nodes=[_node(node) for node in graph.each("node", schema.NODE, "node {}")],
        weights={name: _array(tensor, f"weight {name[:60]!r}") for name, tensor in weights.items()},
        inputs=[_value(value) for value in graph.each("input", schema.VALUE, "input {}")],
        outputs=[_value(value) for value in graph.each("output", schema.VALUE, "output {}")],
        metadata={key: entry.text("value") for key, entry in metadata.items()},
        entries={key: entry.span("value") for key, entry in metadata.items()},
    )


def _by_name(messages: Iterable[Message], field: str, what: str) -> dict[str, Message]:
    """The messages by the text of one of their fields, which no two may share and each is called by from then on."""
    found: dict[str, Message] = {}
    for message in messages:
        name = message.text(field)
        where = what.format(name[:60])
        if name in found:
            raise UserError(f"{where} appears twice; the file is damaged or forged")
        found[name] = replace(message, where=where)
    return found


def _node(node: Message) -> Node:
    operator = node.text("op_type")
    for _ in node.each("attribute", schema.ATTRIBUTE, f"attribute {{}} of {node.where}"):
        pass  # it is checked when it is read, and nothing in it matters here
    inputs, outputs = (tuple(node.texts(end)) for end in ("input", "output"))
    return Node(operator, node.text("domain"), inputs, outputs, node.where)


def _array(tensor: Message, where: str) -> np.ndarray:
    if tensor.holds("external_data") or tensor.number("data_location"):
        raise UserError(f"{where} lies in another file; an artifact is one file, export the policy again")
    dtype = schema.DTYPES.get(tensor.number("data_type"))
    if dtype is None:
        raise UserError(f"{where} has ONNX data type {tensor.number('data_type')}, which no exported policy uses")
    dims = tuple(value for value in tensor.values["dims"] if isinstance(value, int))
    if len(dims) > MAX_RANK or len(dims) != len(tensor.values["dims"]):
        raise UserError(f"{where} has a damaged shape, or more than {MAX_RANK} dimensions")
    raw = tensor.span("raw_data")
    declared = math.prod(dims) * dtype.itemsize
    if not declared or declared != raw.stop - raw.start:
        raise UserError(f"{where} declares {declared} bytes in shape {dims} and holds {raw.stop - raw.start}")
    return np.frombuffer(tensor.reader.data, dtype, math.prod(dims), raw.start).reshape(dims)


def _value(value: Message) -> Value:
    name, where = value.text("name"), value.where
    kind = next(value.each("type", schema.TYPE, f"the type of {where}"), None)
    if kind is None:
        raise UserError(f"{where} {name[:60]!r} has no type; export the policy again")
    tensor = next(kind.each("tensor_type", schema.TENSOR_TYPE, kind.where), None)
    if tensor is None:
        raise UserError(f"{where} {name[:60]!r} is no tensor; export the policy again")
    shape = [
        dimension.number("dim_value") if dimension.holds("dim_value") else dimension.text("dim_param")
        for dims in tensor.each("shape", schema.SHAPE, f"the shape of {where}")
        for dimension in dims.each("dim", schema.DIMENSION, dims.where)
    ]
    return Value(name, tensor.number("elem_type"), tuple(shape))
