"""What an exported policy costs beside torch: `latency` of one decision, and `load`, of the default policy.

The policy has 39 observations and 4 actions of 256 bins. Everything is timed in turns within one run.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.turns import Side, take_turns
from deploy.bench import decision, eager_decision, latencies
from deploy.export.artifact import export
from deploy.runtime.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.policies import Spaces, TokenPolicy

P50_BOUND, TAIL_BOUND, LOAD_BOUND = 0.7, 3.0, 0.5


def latency(blocks: int = 20, decisions: int = 500) -> dict[str, Any]:
    """One sampled decision at batch 1, numpy to numpy: p50 against torch eager's, and p99 against p50.

    The ratio is the median over `blocks` blocks, the tail that of the quietest one: what else the machine does only
    adds to it. On a machine with more work than cores it adds to every block; there processor time says more.
    """
    with _exported() as (_, file):
        policy = OnnxPolicy.load(file)
        torch_decision = eager_decision(policy)
        assert torch_decision is not None
        steps = [decision(policy), torch_decision]
        measured = [latencies(steps, decisions) for _ in range(blocks)]
        processor = latencies(steps, blocks * decisions, time.thread_time_ns)[0]
    onnx, torch_eager = min(measured, key=lambda block: block[0].p99 / block[0].p50)
    ratio, tail = median(mine.p50 / theirs.p50 for mine, theirs in measured), onnx.p99 / onnx.p50
    return {
        "p50_to_torch_eager": ratio,
        "p99_to_p50": tail,
        "p99_to_p50_processor_time": processor.p99 / processor.p50,
        **{f"onnx_{name}_us": value for name, value in asdict(onnx).items()},
        **{f"torch_eager_{name}_us": value for name, value in asdict(torch_eager).items()},
        "bound": P50_BOUND,
        "tail_bound": TAIL_BOUND,
        "ok": ratio <= P50_BOUND and tail <= TAIL_BOUND,
    }


def load(turns: int = 15) -> dict[str, Any]:
    """Loads per second of the artifact, every check included, to those of the checkpoint it was exported from."""
    with _exported() as (checkpoint, file):

        def artifact(side: Side) -> None:
            side.start()
            OnnxPolicy.load(file)
            side.stop(1)

        def torch_policy(side: Side) -> None:
            side.start()
            policy_from(load_checkpoint(checkpoint))
            side.stop(1)

        sides = take_turns({"artifact": artifact, "checkpoint": torch_policy}, turns)
    ratio = sides["artifact"].ratio(sides["checkpoint"])
    return {
        "loads_per_s": sides["artifact"].rate,
        "checkpoint_loads_per_s": sides["checkpoint"].rate,
        "ratio": ratio,
        "bound": LOAD_BOUND,
        "ok": ratio >= LOAD_BOUND,
    }


@contextmanager
def _exported() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, file = Path(folder, "policy.ckpt"), Path(folder, "policy.onnx")
        policy = TokenPolicy(Spaces(39, (-1.0,) * 4, (1.0,) * 4), bins=256)
        weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
        torch.save({"gipo": {"format": 1, "policy": policy.description()}, "state_dict": weights}, checkpoint)
        export(checkpoint, file, rate=80.0)
        yield checkpoint, file
