"""`onnx_latency` and `onnx_load`: one JSON line each, as ratios within this run, so that the machine cancels out.

Run with `python benchmarks/artifact.py`; the policy is the default one (39 observations, 4 actions of 256 bins).
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from deploy.bench import decision, eager_decision, latencies
from deploy.export import export
from deploy.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.policies import Spaces, TokenPolicy

BLOCKS, DECISIONS = 7, 2000
LOADS = 40
P50_RATIO, TAIL_RATIO = 0.7, 3.0  # targets: p50 against torch eager, p99 against p50


def main() -> None:
    """Print both lines."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, file = Path(folder, "policy.ckpt"), Path(folder, "policy.onnx")
        policy = TokenPolicy(Spaces(39, (-1.0,) * 4, (1.0,) * 4))
        weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
        torch.save({"gipo": {"format": 1, "policy": policy.description()}, "state_dict": weights}, checkpoint)
        export(checkpoint, file, rate=80.0)
        print(json.dumps(latency(file)))
        print(json.dumps(load(file, checkpoint)))


def latency(file: Path) -> dict[str, object]:
    """One sampled decision at batch 1, numpy to numpy, ONNX Runtime and torch eager turn by turn.

    The block with the shortest tail of both engines counts: what else the machine does only ever adds to it. On a
    machine with more work than cores that is in every block, so the tail is also given in processor time.
    """
    policy = OnnxPolicy.load(file)
    eager = eager_decision(policy)
    assert eager is not None, "this benchmark needs the training stack"
    steps = [decision(policy), eager]
    blocks = [latencies(steps, DECISIONS) for _ in range(BLOCKS)]
    onnx, torch_eager = min(blocks, key=lambda block: sum(found.p99 for found in block))
    processor = latencies(steps, DECISIONS, time.thread_time_ns)[0]
    ratio, tail = onnx.p50 / torch_eager.p50, onnx.p99 / onnx.p50
    return {
        "benchmark": "onnx_latency",
        "p50_against_torch_eager": round(ratio, 3),
        "p99_against_p50": round(tail, 3),
        "p99_against_p50_processor_time": round(processor.p99 / processor.p50, 3),
        "met": ratio <= P50_RATIO and tail <= TAIL_RATIO,
        "onnx_us": asdict(onnx),
        "torch_eager_us": asdict(torch_eager),
    }


def load(file: Path, checkpoint: Path) -> dict[str, object]:
    """Read, check and arm the artifact, against reading the checkpoint it came from; median times."""
    artifact = _median_seconds(lambda: OnnxPolicy.load(file))
    torch_policy = _median_seconds(lambda: policy_from(load_checkpoint(checkpoint)))
    return {
        "benchmark": "onnx_load",
        "time_against_torch_checkpoint": round(artifact / torch_policy, 3),
        "loads_per_second": round(1 / artifact, 1),
    }


def _median_seconds(step: Callable[[], object]) -> float:
    step()
    times = []
    for _ in range(LOADS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
