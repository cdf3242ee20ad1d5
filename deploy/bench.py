"""What an artifact costs on this machine: latency at batch 1, loading, memory."""

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.runtime.compare import typical_observations
from deploy.runtime.policy import OnnxPolicy
from gipo.common.files import PathLike


@dataclass(frozen=True)
class Latency:
    """Quantiles of one decision, microseconds."""

    p50: float
    p99: float
    p999: float
    worst: float

    @classmethod
    def of(cls, microseconds: np.ndarray) -> "Latency":
        """The quantiles of measured values [N]."""
        p50, p99, p999 = np.quantile(microseconds, (0.5, 0.99, 0.999))
        return cls(float(p50), float(p99), float(p999), float(microseconds.max()))


def latencies(
    steps: list[Callable[[], object]], count: int, clock: Callable[[], int] = time.perf_counter_ns
) -> list[Latency]:
    """Time several functions turn by turn, so that whatever else the machine does falls on all of them alike.

    Args:
        steps: what to time.
        count: calls of each.
        clock: nanoseconds; `time.thread_time_ns` leaves out what other processes take.
    """
    for step in steps:
        for _ in range(max(20, count // 20)):
            step()
    measured = np.empty((len(steps), count))
    gc.collect()
    for i in range(count):
        for j, step in enumerate(steps):
            start = clock()
            step()
            measured[j, i] = (clock() - start) / 1e3
    return [Latency.of(row) for row in measured]


def decision(policy: OnnxPolicy) -> Callable[[], object]:
    """One sampled decision at batch 1, as a robot asks for it: observation in, action and log-prob out."""
    rng = np.random.default_rng(0)
    observation = typical_observations(policy, 1)[0]
    return lambda: policy.act(observation, rng)


def eager_decision(policy: OnnxPolicy) -> Callable[[], object] | None:
    """One sampled decision by torch eager, with fresh weights; None where torch or the policy's class is missing."""
    described = policy.manifest.policy
    parts = [each.get("class_path") for each in (described, described.get("network")) if isinstance(each, Mapping)]
    # An artifact must not choose what is imported here.
    ours = all(
        str(part).startswith(("gipo.policies.", "gipo.networks.", "gipo.vla.policies.", "gipo.vla.tiny."))
        for part in parts
    )
    if not ours:
        return None
    try:
        from deploy.export.eager import decision as torch_decision
    except ImportError:  # torch is there without onnx, or another part of the extra `train`
        return None
    return torch_decision(policy.manifest, typical_observations(policy, 1)[0])


def loads_per_second(path: PathLike) -> float:
    """How often the file can be read, checked and armed, tried for a second."""
    start, loads = time.perf_counter(), 0
    while loads < 3 or time.perf_counter() - start < 1.0:
        OnnxPolicy.load(path)
        loads += 1
    return loads / (time.perf_counter() - start)


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
