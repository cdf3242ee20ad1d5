"""Reads the structure of an ONNX file without the onnx package and without running anything.

ONNX Runtime parses whatever it is given, follows external data and runs any operator; so the artifact is read here
first, and only the plain subset that the exporter writes comes through.
"""

import math
from dataclasses import dataclass

import numpy as np

from deploy.runtime.onnx_schema import (
    ATTRIBUTE,
    DIMENSION,
    DTYPES,
    ENTRY,
    GRAPH,
    MODEL,
    NODE,
    OPSET,
    SHAPE,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE,
)
from deploy.runtime.protobuf import Reader, Span
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
    entries: dict[str, Span]


def read_model(data: bytes) -> Model:
    """Parse an ONNX file; weights are views of `data`, so that no declared size is ever allocated.

    Raises:
        UserError: when the file is damaged, or holds what no exported policy holds.
    """
    if instead := stand_in(data[:64]):
        raise UserError(f"the file is no artifact: {instead}")
    reader = Reader(data)
    model = reader.message(Span(0, len(data)), MODEL, "model")
    if not model["graph"]:
        raise UserError("the file holds no graph; it is not an ONNX model")
    graph = reader.message(_span(model["graph"][0]), GRAPH, "graph")
    metadata, entries = _metadata(reader, model["metadata_props"])
    return Model(
        ir_version=_int(model["ir_version"]),
        opsets=_opsets(reader, model["opset_import"]),
        nodes=[_node(reader, _span(span), f"node {i}") for i, span in enumerate(graph["node"])],
        weights=_weights(reader, graph["initializer"]),
        inputs=[_value(reader, _span(span), f"input {i}") for i, span in enumerate(graph["input"])],
        outputs=[_value(reader, _span(span), f"output {i}") for i, span in enumerate(graph["output"])],
        metadata=metadata,
        entries=entries,
    )


def _span(value: int | Span) -> Span:
    assert isinstance(value, Span)
    return value


def _int(values: list[int | Span], default: int = 0) -> int:
    return values[0] if values and isinstance(values[0], int) else default


def _text(reader: Reader, values: list[int | Span], where: str) -> str:
    return reader.text(values[0], where) if values else ""


def _metadata(reader: Reader, spans: list[int | Span]) -> tuple[dict[str, str], dict[str, Span]]:
    metadata: dict[str, str] = {}
    entries: dict[str, Span] = {}
    for span in spans:
        entry = reader.message(_span(span), ENTRY, "metadata")
        key = _text(reader, entry["key"], "metadata key")
        if key in metadata or not entry["value"]:
            raise UserError(f"metadata {key[:60]!r} appears twice or without a value; the file is damaged or forged")
        metadata[key] = _text(reader, entry["value"], f"metadata {key[:60]!r}")
        entries[key] = _span(entry["value"][0])
    return metadata, entries


def _opsets(reader: Reader, spans: list[int | Span]) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for span in spans:
        entry = reader.message(_span(span), OPSET, "opset_import")
        domain = _text(reader, entry["domain"], "opset domain")
        if domain in opsets:
            raise UserError(f"opset_import names the domain {domain[:60]!r} twice; the file is damaged or forged")
        opsets[domain] = _int(entry["version"])
    return opsets


def _node(reader: Reader, span: Span, where: str) -> Node:
    node = reader.message(span, NODE, where)
    operator = _text(reader, node["op_type"], where)
    for attribute in node["attribute"]:
        reader.message(_span(attribute), ATTRIBUTE, f"an attribute of {where} ({operator[:60]!r})")
    domain = _text(reader, node["domain"], where)
    inputs, outputs = (tuple(reader.text(name, where) for name in node[end]) for end in ("input", "output"))
    return Node(operator, domain, inputs, outputs, where)


def _weights(reader: Reader, spans: list[int | Span]) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    for i, span in enumerate(spans):
        tensor = reader.message(_span(span), TENSOR, f"weight {i}")
        name = _text(reader, tensor["name"], f"weight {i}")
        if name in weights:
            raise UserError(f"weight {name[:60]!r} appears twice; the file is damaged or forged")
        weights[name] = _array(reader, tensor, f"weight {name[:60]!r}")
    return weights


def _array(reader: Reader, tensor: dict[str, list[int | Span]], where: str) -> np.ndarray:
    if tensor["external_data"] or _int(tensor["data_location"]):
        raise UserError(f"{where} lies in another file; an artifact is one file, export the policy again")
    dtype = DTYPES.get(_int(tensor["data_type"]))
    if dtype is None:
        raise UserError(f"{where} has ONNX data type {_int(tensor['data_type'])}, which no exported policy uses")
    dims = _dims(tensor["dims"], where)
    raw = _span(tensor["raw_data"][0]) if tensor["raw_data"] else Span(0, 0)
    declared = math.prod(dims) * dtype.itemsize
    if not declared or declared != raw.stop - raw.start:
        raise UserError(f"{where} declares {declared} bytes in shape {dims} and holds {raw.stop - raw.start}")
    return np.frombuffer(reader.data, dtype, math.prod(dims), raw.start).reshape(dims)


def _dims(values: list[int | Span], where: str) -> tuple[int, ...]:
    if len(values) > MAX_RANK or not all(isinstance(value, int) for value in values):
        raise UserError(f"{where} has a damaged shape, or more than {MAX_RANK} dimensions")
    return tuple(value for value in values if isinstance(value, int))


def _value(reader: Reader, span: Span, where: str) -> Value:
    value = reader.message(span, VALUE, where)
    name = _text(reader, value["name"], where)
    if not value["type"]:
        raise UserError(f"{where} {name[:60]!r} has no type; export the policy again")
    kind = reader.message(_span(value["type"][0]), TYPE, f"the type of {where}")
    if not kind["tensor_type"]:
        raise UserError(f"{where} {name[:60]!r} is no tensor; export the policy again")
    tensor = reader.message(_span(kind["tensor_type"][0]), TENSOR_TYPE, f"the type of {where}")
    shape: list[int | str] = []
    for dims in tensor["shape"]:
        for dim in reader.message(_span(dims), SHAPE, f"the shape of {where}")["dim"]:
            entry = reader.message(_span(dim), DIMENSION, f"the shape of {where}")
            symbolic = not entry["dim_value"]
            shape.append(_text(reader, entry["dim_param"], where) if symbolic else _int(entry["dim_value"]))
    return Value(name, _int(tensor["elem_type"]), tuple(shape))
