"""The bounds of each check of an artifact, by hand."""

from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deploy.runtime import check
from deploy.runtime.check import MAX_BYTES, MAX_NODES, check_bytes, digest, refuse_large
from deploy.runtime.normaliser import MEAN, SCALE, normaliser_hash
from deploy.runtime.onnx_file import Model, Node, Value
from gipo.common.errors import UserError


def model(**changes: Any) -> Model:
    empty: dict[str, Any] = {
        "ir_version": 10, "opsets": {"": 20}, "nodes": [], "weights": {}, "inputs": [], "outputs": [],
        "metadata": {}, "entries": {},
    }  # fmt: skip
    return Model(**(empty | changes))


def node(*inputs: str, operator: str = "Add", outputs: tuple[str, ...] = ("y",), domain: str = "") -> Node:
    return Node(operator, domain, inputs, outputs, "node 0")


def refused(said: str) -> AbstractContextManager[Any]:
    return pytest.raises(UserError, match=said) if said else nullcontext()


def test_an_artifact_may_be_as_large_as_is_said() -> None:
    refuse_large(MAX_BYTES)
    with refused(f"has {MAX_BYTES + 1:,} bytes, more than the {MAX_BYTES:,}"):
        refuse_large(MAX_BYTES + 1)


def test_what_is_in_memory_is_as_large_as_a_file_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_BYTES", 3)
    with refused("has 4 bytes, more than the 3 of"):
        check_bytes(b"abcd")


def test_a_digest_is_of_every_byte_but_its_own() -> None:
    whole = b"ab" + b"#" * 64 + b"cd"
    span = slice(2, 66)
    assert digest(whole, span) == digest(b"ab" + b"0" * 64 + b"cd", span)
    for other in (b"Ab" + b"#" * 64 + b"cd", b"ab" + b"#" * 64 + b"Cd", b"ab" + b"#" * 64 + b"cD", whole[:-1]):
        assert digest(other, span) != digest(whole, span)


@pytest.mark.parametrize(
    ("version", "opsets", "said"),
    [
        (8, {"": 20}, ""),
        (10, {"": 20}, ""),
        (7, {"": 20}, "has IR version 7 .*reads IR versions 8 to 10"),
        (11, {"": 20}, "has IR version 11"),
        (10, {"": 19}, "opset ai.onnx 19 "),
        (10, {"": 20, "a.b": 1}, "opset ai.onnx 20, a.b 1 "),
        (10, {}, "opset none "),
    ],
)
def test_versions_that_are_read(version: int, opsets: dict[str, int], said: str) -> None:
    with refused(said):
        check._opset(model(ir_version=version, opsets=opsets))


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([node("x")] * MAX_NODES, ""),
        ([node("x")] * (MAX_NODES + 1), "the graph has 1001 nodes; a policy has 1 to 1000"),
        ([], "the graph has 0 nodes"),
        ([node("x", "w")], ""),
        ([node("w")], "node 0, Add, does not depend on"),
        ([node("x", outputs=("a", "b")), node("w", "b")], ""),
        ([node("x", outputs=("a", "")), node("w", "")], "does not depend on"),  # the empty name is that of nothing
        ([node("x", operator="Loop")], "operator 'Loop'"),
        ([node("x", domain="a.b")], "custom operator a.b::Add"),
    ],
)
def test_nodes_that_a_policy_has(nodes: list[Node], said: str) -> None:
    with refused(said):
        assert check._operators(model(nodes=nodes, inputs=[Value("x", 1, ())])) == "1 kinds, no custom ones"


def test_no_operator_draws_branches_or_makes_a_tensor_of_a_size() -> None:
    drawing = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
    assert not check.OPERATORS & drawing
    assert not check.OPERATORS & {"If", "Loop", "Scan", "SequenceMap", "ConstantOfShape", "Expand", "Tile", "Range"}


@pytest.mark.parametrize(("uses", "too_often"), [([5, 5], False), ([7, 4], False), ([6, 6], True), ([8, 4], True)])
def test_weights_may_be_used_four_times_over_and_a_million_more(uses: list[int], too_often: bool) -> None:
    """Of 600,000 numbers at most 3.4 million: of two halves each five times 3, and seven and four times 3.3."""
    weights = {"w": np.zeros(300_000, np.float16), "v": np.zeros(300_000, np.int64)}
    first, second = uses
    nodes = [node("x", "w", "w")] * (first // 2) + [node("w")] * (first % 2) + [node("x", "v")] * second
    with refused("uses its 600,000 weights 6 times over" if too_often else ""):
        assert check._weights(model(weights=weights, nodes=nodes)) == "600,000 numbers, all finite"


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_weight_of_any_kind_is_finite(kind: type, bad: float) -> None:
    check._weights(model(weights={"w": np.array([1, 2], kind)}))
    with refused("weight 'v' is not finite"):
        check._weights(model(weights={"w": np.ones(2, kind), "v": np.array([1, bad], kind)}))


@pytest.mark.parametrize("kind", ["input", "output"])
def test_what_goes_in_and_out_is_what_the_manifest_says(kind: str) -> None:
    wanted = [Value("a", 1, ("batch", 3)), Value("b", 7, ("batch", 2, 4))]
    assert check._values(kind, wanted, wanted) == "a [batch, 3], b [batch, 2, 4]"
    for other, said in (
        (Value("b", 1, ("batch", 2, 4)), f"{kind} 'b' has ONNX data type 1, not 7"),
        (Value("b", 7, ("batch", 2, 5)), f"{kind} 'b' has shape .*5.*, the manifest says .*4"),
        (Value("b", 7, (1, 2, 4)), f"{kind} 'b' has shape"),
        (Value("c", 7, ("batch", 2, 4)), f"the {kind}s are a, c; they must be a, b"),
    ):
        with refused(said):
            check._values(kind, [wanted[0], other], wanted)
    with refused(f"the {kind}s are b, a;"):
        check._values(kind, wanted[::-1], wanted)
    with refused(f"the {kind}s are a;"):
        check._values(kind, wanted[:1], wanted)


@pytest.mark.parametrize("missing", [MEAN, SCALE, ""])
@pytest.mark.parametrize("moved", ["mean", "scale", "mean listed", "scale listed", "sha256", ""])
def test_the_normaliser_is_one_in_the_graph_in_the_list_and_in_its_hash(missing: str, moved: str) -> None:
    values = {name: np.array([1.0, 2.0], np.float32) for name in ("mean", "scale", "mean listed", "scale listed")}
    sha256 = normaliser_hash(values["mean"], values["scale"]) if moved != "sha256" else "0" * 64
    if moved in values:
        values[moved] = np.array([1.0, 2.5], np.float32)
    weights = {MEAN: values["mean"], SCALE: values["scale"], "of a layer": np.ones((2, 2), np.float32)}
    weights.pop(missing, None)
    listed = SimpleNamespace(
        mean=tuple(values["mean listed"].tolist()), scale=tuple(values["scale listed"].tolist()), sha256=sha256
    )
    manifest: Any = SimpleNamespace(normaliser=listed)
    with refused("the graph has no weights" if missing else "the normaliser in the graph is" if moved else ""):
        assert "…, 2 means and scales in the graph" in check._normaliser(model(weights=weights), manifest)
    assert check._normaliser(model(), SimpleNamespace(normaliser=None)) == "none"  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "kind"), [("token", 7), ("gaussian", 1)])
def test_inputs_and_outputs_are_those_of_a_policy_with_the_manifests_sizes(family: str, kind: int) -> None:
    """ONNX calls float32 1, uint8 2 and int64 7."""
    given: dict[str, Any] = {"family": family, "observation_size": 4, "parameters_per_dimension": 16}
    flat: Any = SimpleNamespace(**given, vision=None, layout=SimpleNamespace(decision=(2,)))
    vision = SimpleNamespace(image_shape=(3, 8, 6), instruction_bytes=5)
    sees: Any = SimpleNamespace(**given, vision=vision, layout=SimpleNamespace(decision=(7, 2)))
    assert check._inputs(flat) == [Value("observation", 1, ("batch", 4)), Value("noise", 1, ("batch", 2))]
    assert check._inputs(sees) == [
        Value("observation", 1, ("batch", 4)), Value("image", 2, ("batch", 3, 8, 6)),
        Value("instruction", 7, ("batch", 5)), Value("noise", 1, ("batch", 7, 2)),
    ]  # fmt: skip
    for manifest, shape in ((flat, (2,)), (sees, (7, 2))):
        assert check._outputs(manifest) == [
            Value("action", 1, ("batch", *shape)), Value("deterministic_action", 1, ("batch", *shape)),
            Value("latent", kind, ("batch", *shape)), Value("log_prob", 1, ("batch", *shape)),
            Value("params", 1, ("batch", *shape, 16)),
        ]  # fmt: skip


def test_a_report_says_of_the_identity_whether_it_was_required(small: dict[str, Any]) -> None:
    data, identity, said = small["file"].read_bytes(), small["loaded"].policy_id, {}
    check_bytes(data, None, said.__setitem__)
    assert said["identity"] == identity
    check_bytes(data, identity, said.__setitem__)
    assert said["identity"] == f"{identity}, as required"


def test_a_refusal_of_many_opsets_is_short() -> None:
    with pytest.raises(UserError) as error:
        check._opset(model(opsets={"": 20} | {f"domain.{number}": 1 for number in range(500)}))
    assert len(str(error.value)) < 400
