"""Dynamic int8: smaller and faster matrix products, and another policy; so how far it moved is part of the result."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from deploy import distributions
from deploy.graph import strip
from deploy.probes import Outputs


def quantise(model: ModelProto) -> ModelProto:
    """The graph with int8 weights and activations in its matrix products; normaliser and sampling head stay float."""
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            # Seven bits: some processors saturate sums of full int8 products, and would answer otherwise than others.
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
        return strip(onnx.load(target))


def shift(family: str, before: Outputs, after: Outputs) -> dict[str, float]:
    """How far `after` is from `before` on the same observations and noise.

    KL is KL(before‖after) of an action dimension, nats; actions are in environment units.
    """
    kl = distributions.kl(family, before["params"], after["params"])
    action = np.abs(before["action"].astype(np.float64) - after["action"])
    mode = np.abs(before["deterministic_action"].astype(np.float64) - after["deterministic_action"])
    log_prob = distributions.log_prob(family, after["params"], before["latent"]) - distributions.log_prob(
        family, before["params"], before["latent"]
    )
    return {
        "kl_mean": float(kl.mean()),
        "kl_max": float(kl.max()),
        "log_prob_difference_mean": float(np.abs(log_prob).mean()),
        "log_prob_difference_max": float(np.abs(log_prob).max()),
        "action_difference_mean": float(action.mean()),
        "action_difference_max": float(action.max()),
        "deterministic_action_difference_mean": float(mode.mean()),
        "deterministic_action_difference_max": float(mode.max()),
    }


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
