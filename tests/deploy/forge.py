"""Damaged and forged artifacts: each breaks one thing and, unless that thing is the digest, seals the file anew."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from deploy.runtime.check import DIGEST_KEY, MANIFEST_KEY, digest
from deploy.runtime.manifest import SCHEMA
from deploy.runtime.normaliser import normaliser_hash
from deploy.runtime.onnx_file import read_model

Edit = Callable[[ModelProto], None]


def seal(model: ModelProto) -> bytes:
    """The bytes of an edited model with a digest that fits them, where the file can still be read for one."""
    for entry in model.metadata_props:
        if entry.key == DIGEST_KEY:
            entry.value = "0" * 64
    data = model.SerializeToString(deterministic=True)
    place = data.find(b"0" * 64)
    if place < 0:
        return data
    span = slice(place, place + 64)
    return data[:place] + digest(data, span).encode() + data[place + 64 :]  # type: ignore[arg-type]


def edited(edit: Edit) -> Callable[[bytes], bytes]:
    def forge(data: bytes) -> bytes:
        model = ModelProto.FromString(data)
        edit(model)
        return seal(model)

    return forge


def manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def edit(model: ModelProto) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == MANIFEST_KEY)
        raw = json.loads(entry.value)
        change(raw)
        entry.value = json.dumps(raw)

    return edited(edit)


def text(change: Callable[[str], str]) -> Callable[[bytes], bytes]:
    def edit(model: ModelProto) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == MANIFEST_KEY)
        entry.value = change(entry.value)

    return edited(edit)


def weight(model: ModelProto, index: int = 0) -> TensorProto:
    """A weight matrix."""
    return [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2][index]


def named(model: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def put(tensor: TensorProto, index: int, value: float) -> None:
    array = numpy_helper.to_array(tensor).copy()
    array.flat[index] = value
    tensor.raw_data = array.tobytes()


def flip(fraction: float) -> Callable[[bytes], bytes]:
    def forge(data: bytes) -> bytes:
        place = int(len(data) * fraction)
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    return forge


def in_digest(data: bytes) -> bytes:
    place = read_model(data).entries[DIGEST_KEY].start
    return data[:place] + (b"0" if data[place : place + 1] != b"0" else b"1") + data[place + 1 :]


def external(location: str) -> Edit:
    def edit(model: ModelProto) -> None:
        tensor = weight(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return edit


def dims(*sizes: int) -> Edit:
    def edit(model: ModelProto) -> None:
        tensor = weight(model)
        del tensor.dims[:]
        tensor.dims.extend(sizes)

    return edit


def node(operator: str, domain: str = "", **attributes: Any) -> Edit:
    def edit(model: ModelProto) -> None:
        model.graph.node.append(helper.make_node(operator, ["observation"], ["extra"], domain=domain, **attributes))

    return edit


def subgraph(model: ModelProto) -> None:
    branch = GraphProto(name="branch")
    model.graph.node.append(helper.make_node("If", ["observation"], ["extra"], then_branch=branch, else_branch=branch))


def tensor_attribute(model: ModelProto) -> None:
    constant = numpy_helper.from_array(np.ones(3, np.float32))
    model.graph.node[0].attribute.append(AttributeProto(name="v", type=AttributeProto.TENSOR, t=constant))


def normaliser(graph: bool, listed: bool, hashed: bool) -> Callable[[bytes], bytes]:
    """Move the normaliser's mean in the graph, in the manifest's list, and in its hash."""

    def forge(data: bytes) -> bytes:
        model = ModelProto.FromString(data)
        entry = next(entry for entry in model.metadata_props if entry.key == MANIFEST_KEY)
        raw = json.loads(entry.value)
        mean = numpy_helper.to_array(named(model, "normaliser.mean")).copy()
        mean[0] += 0.05
        if graph:
            named(model, "normaliser.mean").raw_data = mean.tobytes()
        if listed:
            raw["normaliser"]["mean"] = mean.tolist()
        if hashed:
            raw["normaliser"]["sha256"] = normaliser_hash(mean, np.array(raw["normaliser"]["scale"]))
        entry.value = json.dumps(raw)
        return seal(model)

    return forge


def bomb(constant: bool) -> Edit:
    """Two vectors of 160 kB whose sum takes 6.4 GB: while the graph is loaded, or when it is run."""

    def edit(model: ModelProto) -> None:
        tall, wide = np.ones((40_000, 1), np.float32), np.ones((1, 40_000), np.float32)
        model.graph.initializer.extend([numpy_helper.from_array(tall, "tall"), numpy_helper.from_array(wide, "wide")])
        nodes = [
            helper.make_node("ReduceMean", ["observation"], ["seen"], keepdims=0),
            helper.make_node("Add", ["tall", "wide" if constant else "seen"], ["higher"]),
            helper.make_node("Add", ["higher", "wide"], ["area"]),
            helper.make_node("ReduceMean", ["area"], ["one"], keepdims=0),
            helper.make_node("Add", ["observation", "one"], ["moved"]),
        ]
        model.graph.node[0].input[0] = "moved"
        kept = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *kept])

    return edit


def nameless_bomb(model: ModelProto) -> None:
    """A constant product of 6.4 GB, hung on an output and an input that are left out: both have the empty name."""
    tall, wide = np.ones((40_000, 1), np.float32), np.ones((1, 40_000), np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(tall, "tall"), numpy_helper.from_array(wide, "wide")])
    kept = list(model.graph.node)
    del model.graph.node[:]
    nodes = [
        helper.make_node("LayerNormalization", ["observation", weight(model).name], ["seen", ""]),
        helper.make_node("Gemm", ["tall", "wide", ""], ["area"]),
    ]
    model.graph.node.extend([*nodes, *kept])


def time_bomb(model: ModelProto) -> None:
    """Nine hundred products with one matrix of a megabyte."""
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((512, 512), np.float32), "square"))
    for i in range(900):
        model.graph.node.append(helper.make_node("MatMul", [f"m{i - 1}" if i else "observation", "square"], [f"m{i}"]))


def swap_inputs(model: ModelProto) -> None:
    first, second = (ModelProto.FromString(model.SerializeToString()).graph.input[i] for i in (1, 0))
    model.graph.input[0].CopyFrom(first)
    model.graph.input[1].CopyFrom(second)


def fixed_batch(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def element_type(model: ModelProto) -> None:
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.DOUBLE


def rename_output(model: ModelProto) -> None:
    model.graph.output[0].name = "actions"


def second_manifest(model: ModelProto) -> None:
    model.metadata_props.add(key=MANIFEST_KEY, value="{}")


def without(key: str) -> Edit:
    def edit(model: ModelProto) -> None:
        kept = [entry for entry in model.metadata_props if entry.key != key]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)

    return edit


def many_nodes(model: ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Identity", ["observation"], [f"n{i}"]) for i in range(3000)])


def golden(key: str, row: int, by: float) -> Callable[[bytes], bytes]:
    def change(raw: dict[str, Any]) -> None:
        raw["golden"][key][row][0] += by

    return manifest(change)


def put_key(key: str, value: Any) -> Callable[[bytes], bytes]:
    return manifest(lambda raw: raw.__setitem__(key, value))


def opset(domain: str, version: int) -> Edit:
    def edit(model: ModelProto) -> None:
        if domain:
            model.opset_import.add(domain=domain, version=version)
        else:
            model.opset_import[0].version = version

    return edit


def dangling(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Add", ["observation", "nowhere"], ["extra"]))


def reorder_golden(raw: dict[str, Any]) -> None:
    raw["golden"]["action"] = raw["golden"]["action"][::-1]


# Refused from the bytes alone: ONNX Runtime never sees them. name → (forge, what the message must say)
STATIC: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "no artifact: it is empty"),
    "one byte": (lambda data: data[:1], "truncated"),
    "half": (lambda data: data[: len(data) // 2], "truncated"),
    "last byte missing": (lambda data: data[:-1], "truncated"),
    "bytes appended": (lambda data: data + b"\0\0", "field 0|which no exported policy uses"),
    "zeros": (lambda data: bytes(len(data)), "which no exported policy uses"),
    "text": (lambda data: b"policy: please\n" * 100, "damaged|which no exported policy uses"),
    "compressed": (gzip.compress, "compressed with gzip"),
    "pickle": (lambda data: b"\x80\x04\x95" + data, "field|claims|damaged"),
    "twice": (lambda data: data + data, "appears twice"),
    "endless number": (lambda data: b"\xff" * 4096, "no end|damaged"),
    "field claims an exabyte": (lambda data: b"\x3a" + b"\xff" * 8 + b"\x0f" + data, "claims"),
    "a million nodes": (lambda data: b"\x3a\x80\x89\x7a" + b"\x0a\x00" * 1_000_000, "more than 200000"),
    "group wire type": (lambda data: b"\x3b" + data, "wire type 3"),
    "flipped in the first weights": (flip(0.3), "digest|appears|damaged|declares|field"),
    "flipped in the last weights": (flip(0.5), "digest|appears|damaged|declares|field|UTF-8"),
    "flipped in the manifest": (flip(0.9), "digest|field|claims"),
    "flipped in the digest": (in_digest, "digest"),
    "external data, path traversal": (edited(external("../../../etc/passwd")), "another file"),
    "external data, absolute path": (edited(external("/etc/passwd")), "another file"),
    "external data, link beside": (edited(external("weights.bin")), "another file"),
    "no manifest": (edited(without(MANIFEST_KEY)), "no metadata 'gipo.manifest'"),
    "no digest": (edited(without(DIGEST_KEY)), "no metadata 'gipo.digest'"),
    "two manifests": (edited(second_manifest), "twice"),
    "newer schema": (put_key("schema", SCHEMA + 1), f"schema is {SCHEMA + 1}.*upgrade"),
    "no checkpoint, though its schema has one": (manifest(lambda raw: raw.pop("checkpoint")), "checkpoint is missing"),
    "checkpoint is no id": (put_key("checkpoint", "last.ckpt"), "checkpoint is 'last.ckpt'"),
    "schema is text": (put_key("schema", "1"), "schema is '1'"),
    "schema is true": (put_key("schema", True), "schema is True"),
    "manifest is not UTF-8": (
        lambda data: data.replace(b'"schema"', b'"sch\xffma"', 1),
        "metadata 'gipo.manifest' at byte .* is not UTF-8",
    ),
    "manifest cut short": (text(lambda t: t[:-10]), "not JSON"),
    "manifest is a list": (text(lambda t: "[1]"), "must be an object"),
    "manifest holds NaN": (
        text(
            lambda t: t.replace('"control_rate_hz": 50.0', '"control_rate_hz": NaN').replace(
                '"control_rate_hz":50.0', '"control_rate_hz":NaN'
            )
        ),
        "NaN",
    ),
    "manifest nested without end": (text(lambda t: "[" * 100_000), "not JSON"),
    "manifest nested deeply": (put_key("policy", json.loads("[" * 500 + "]" * 500)), "nests values more than 64 deep"),
    "manifest of eight megabytes": (text(lambda t: t + " " * (8 << 20)), "characters, more than"),
    "manifest names a key twice": (text(lambda t: t[:-1] + ',"family":"token"}'), "twice"),
    "manifest key missing": (manifest(lambda raw: raw.pop("action_low")), "action_low is missing"),
    "manifest key unknown": (put_key("acton_low", []), "acton_low"),
    "control rate zero": (put_key("control_rate_hz", 0), "control_rate_hz is 0"),
    "control rate of a MHz": (put_key("control_rate_hz", 1e6), "control_rate_hz is 1000000.0; it must be above 0"),
    "control rate of 10^400": (text(lambda t: t.replace(":50.0", ":1e400", 1)), "holds 1e400, which is no number"),
    "terminal escape in a name": (put_key("action_names", ["\x1b[2J", "b"]), "printable"),
    "observation named twice": (put_key("observation_names", ["a"] * 5), "differ from each other"),
    "bounds reversed": (put_key("action_low", [5.0, 5.0]), "must be below action_high"),
    "int8 without its report": (put_key("precision", "int8"), "quantisation is None; it must be the report of an int8"),
    "unknown family": (put_key("family", "diffusion"), "one of token, gaussian"),
    "family is a list": (put_key("family", []), "one of token, gaussian"),
    "other family": (put_key("family", "gaussian"), "2 for a gaussian"),
    "rounding that forgives anything": (put_key("rounding", 10.0), "rounding"),
    "no golden vectors": (manifest(lambda raw: [rows.clear() for rows in raw["golden"].values()]), "1 to 64 rows"),
    "golden value beyond float32": (golden("observation", 0, 1e39), "float32 can hold"),
    "golden row too short": (manifest(lambda raw: raw["golden"]["noise"][0].pop()), "golden.noise"),
    "manifest of another robot": (put_key("observation_names", list("abcdef")), "a list of 6 texts"),
    "inputs swapped": (edited(swap_inputs), "inputs are noise, observation"),
    "output renamed": (edited(rename_output), "outputs are actions"),
    "input of another type": (edited(element_type), "data type 11"),
    "batch fixed": (edited(fixed_batch), "has shape"),
    "weight is NaN": (edited(lambda m: put(weight(m), 3, np.nan)), "not finite"),
    "weight is infinite": (edited(lambda m: put(weight(m), 3, np.inf)), "not finite"),
    "weight declares terabytes": (edited(dims(1 << 20, 1 << 20)), "declares"),
    "weight size overflows": (edited(dims(1 << 62, 1 << 62)), "declares"),
    "weight size negative": (edited(dims(-1, 5)), "declares"),
    "weight of rank 9": (edited(dims(*[1] * 9)), "more than 8 dimensions"),
    "weight is text": (edited(lambda m: setattr(weight(m), "data_type", TensorProto.STRING)), "data type 8"),
    "weight twice": (edited(lambda m: m.graph.initializer.append(weight(m))), "appears twice"),
    "sparse weight": (edited(lambda m: m.graph.sparse_initializer.add()), "field 15"),
    "function": (edited(lambda m: m.functions.add(name="f")), "field 25"),
    "training graph": (edited(lambda m: m.training_info.add()), "field 20"),
    "older opset": (edited(opset("", 13)), "opset ai.onnx 13"),
    "newer opset": (edited(opset("", 99)), "opset ai.onnx 99"),
    "opset of a vendor": (edited(opset("com.vendor", 1)), "com.vendor"),
    "other IR version": (
        edited(lambda m: setattr(m, "ir_version", 99)),
        r"IR version 99 \(opset ai.onnx 20\), .* 8 to 10",
    ),
    "custom operator": (edited(node("Run", "com.vendor")), "custom operator com.vendor::Run"),
    "loop": (edited(node("Loop")), "'Loop'"),
    "branches": (edited(subgraph), "field"),
    "tensor from a size": (edited(node("ConstantOfShape")), "'ConstantOfShape'"),
    "own randomness": (edited(node("RandomNormalLike")), "'RandomNormalLike'"),
    "tensor in an attribute": (edited(tensor_attribute), "field 5"),
    "memory bomb when it is loaded": (edited(bomb(constant=True)), "does not depend on"),
    "memory bomb that hangs on nothing": (edited(nameless_bomb), "Gemm, does not depend on"),
    "time bomb": (edited(time_bomb), "times over"),
    "too many nodes": (edited(many_nodes), "a policy has 1 to 1000"),
    "no nodes": (edited(lambda m: m.graph.ClearField("node")), "0 nodes"),
    "normaliser changed in the graph": (normaliser(True, False, False), "normaliser in the graph"),
    "normaliser changed in the manifest": (normaliser(False, True, False), "normaliser in the graph"),
    "normaliser renamed": (edited(lambda m: setattr(named(m, "normaliser.mean"), "name", "mean")), "no weights"),
}

# Refused by ONNX Runtime, or by the golden vectors.
ARMED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "input from nowhere": (edited(dangling), "refuses the graph"),
    "normaliser changed everywhere": (normaliser(True, True, True), "golden vector"),
    "wrong golden action": (golden("action", 0, 0.01), "golden vector 0: action"),
    "wrong golden deterministic action": (golden("deterministic_action", 5, 0.01), "deterministic_action"),
    "wrong golden token": (golden("latent", 2, 1), "golden vector 2: latent"),
    "wrong golden log-prob": (golden("log_prob", 15, 0.01), "golden vector 15: log_prob"),
    "golden rows in another order": (manifest(reorder_golden), "golden vector"),
    "one weight changed": (edited(lambda m: put(weight(m, 1), 7, 1.0)), "golden vector"),
    "memory bomb when it runs": (edited(bomb(constant=False)), "cannot be run"),
}
