"""Torch policy → ONNX graph: traced from the policy's own functions, then stripped to what the robot needs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

from deploy.runtime.acting import OUTPUTS
from deploy.runtime.check import OPSET
from deploy.runtime.layout import Layout, Vision
from deploy.runtime.normaliser import MEAN, SCALE, Normaliser, normaliser_hash
from gipo.common.errors import UserError, first_line
from gipo.policies import Policy

_IR_VERSION = 10


class StochasticPolicy(nn.Module):
    """The whole policy as one function; what is exported, and what parity is measured against."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """`deploy.runtime.acting.OUTPUTS` of the graph's inputs in their order, as `Layout.feeds` names them."""
        policy, (*seen, noise) = self.policy, inputs
        params = policy.params(as_policy(seen))
        latent = policy.sample(params, noise)
        return (
            policy.to_env(latent),
            policy.to_env(policy.mode(params)),
            latent,
            policy.log_prob(params, latent),
            params,
        )


def layout_of(policy: Policy) -> Layout:
    """How the graph of a policy takes observations and gives decisions."""
    spaces: Any = policy.spaces
    vision = None
    if len(spaces.decision) == 2:
        vision = Vision(spaces.image, spaces.instruction_bytes, spaces.chunk, spaces.cameras)
    return Layout(spaces.observation_size, policy.action_size, vision)


def observed(layout: Layout, rows: np.ndarray) -> dict[str, Tensor]:
    """The graph's inputs but noise, for rows [B, R]."""
    feeds = layout.feeds(rows, np.zeros((len(rows), layout.decision_size), np.float32))
    return {name: torch.from_numpy(value) for name, value in feeds.items() if name != "noise"}


def as_policy(seen: Iterable[Tensor]) -> Any:
    """What the policy itself takes for an observation, from the graph's inputs but noise, in their order."""
    state, *vision = seen
    return {"state": state, "image": vision[0], "instruction": vision[1]} if vision else state


def trace(policy: Policy) -> ModelProto:
    """The ONNX graph of a policy: one opset, dynamic batch, every constant a named weight, no notes of the exporter.

    Raises:
        UserError: when the policy cannot be exported, or the ONNX checker finds a fault in its graph.
    """
    if not policy.network.exportable:
        raise UserError(
            f"{type(policy).__name__} cannot be exported to ONNX: {type(policy.network).__name__} reads words and "
            "calls other libraries; train one with gipo.vla.tiny.TinyVLANetworks for a robot that runs without torch"
        )
    layout = layout_of(policy)
    seen = observed(layout, np.zeros((2, layout.row_size), np.float32))
    example = (*seen.values(), policy.noise((2,)))
    batch = torch.export.Dim("batch")
    try:
        with quiet("torch.onnx"):
            program = torch.onnx.export(
                StochasticPolicy(policy).eval(),
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[*seen, "noise"],
                output_names=list(OUTPUTS),
                dynamic_shapes=(tuple({0: batch} for _ in example),),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(f"{type(policy).__name__} cannot be exported to ONNX: {first_line(error)}") from error
    assert program is not None
    model = strip(program.model_proto)
    if policy.normaliser is not None:
        mean, scale = folded_normaliser(policy)
        _name_weights(model, {MEAN: (mean, "Sub"), SCALE: (scale, "Div")})
    return checked(model)


def strip(model: ModelProto) -> ModelProto:
    """A copy without stack traces, shapes of intermediates, unused opsets and packed constants."""
    clean = ModelProto(ir_version=_IR_VERSION, producer_name="gipo")
    clean.opset_import.add(domain="", version=OPSET)
    graph = clean.graph
    graph.name = "policy"
    graph.node.extend(model.graph.node)
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    graph.initializer.extend(
        numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name) for tensor in model.graph.initializer
    )
    for source, target in ((model.graph.input, graph.input), (model.graph.output, graph.output)):
        for value in source:
            target.add(name=value.name, type=value.type)
    return clean


def folded_normaliser(policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale [O] in float32, rounded exactly as the normaliser rounds them when it is called."""
    assert policy.normaliser is not None
    return policy.normaliser.mean.float().cpu().numpy(), policy.normaliser.scale().float().cpu().numpy()


def normaliser_of(policy: Policy) -> Normaliser | None:
    """The normaliser of a policy as the manifest lists it; None where it has none."""
    if policy.normaliser is None:
        return None
    mean, scale = folded_normaliser(policy)
    bound = float(policy.normaliser.bound)
    return Normaliser(tuple(mean.tolist()), tuple(scale.tolist()), bound, normaliser_hash(mean, scale))


def _name_weights(model: ModelProto, names: dict[str, tuple[np.ndarray, str]]) -> None:
    """Rename the weights that hold the given values and feed the given operator on the way from the observation."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    value = "observation"
    for name, (expected, operator) in names.items():
        node = next((node for node in model.graph.node if value in node.input and node.op_type == operator), None)
        found = weights.get(node.input[1]) if node is not None else None
        if node is None or found is None or not np.array_equal(numpy_helper.to_array(found), expected):
            raise UserError(
                f"the exported graph does not apply {name} to the observation as the policy does; "
                "this torch exports it otherwise: use the torch that constraints.txt names"
            )
        value = node.output[0]
        # A copy under its own name: the exporter may have let another layer share an equal weight.
        model.graph.initializer.append(numpy_helper.from_array(expected, name))
        node.input[1] = name
    _drop_unused(model)


def _drop_unused(model: ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


@contextlib.contextmanager
def quiet(name: str | None = None) -> Iterator[None]:
    """Silence a logger (the root unless named), warnings and prints: they talk of packages that no policy needs."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def checked(model: ModelProto) -> ModelProto:
    """`model`, in which the ONNX package's own checker finds no fault, its inference of shapes included.

    Raises:
        UserError: when it finds a fault.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"the ONNX checker refuses the graph: {error}") from error
    return model
