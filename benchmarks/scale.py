"""Environment steps per second with more actors: one and two worker processes, one and two Ray actors, in one run.

Every side acts with the default network in the same number of simulators per worker; the sides take turns. Ratios are
to one worker process, of the same kind of segment. Two can only be twice as fast where two cores are idle: read them
beside `load_average_before` and `cores`. The rest are inputs of the throughput model in docs/scale.md: bytes of a
transition and of a policy, and the seconds to pack the latter.
"""

import io
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import torch
from tensordict import TensorDict

from benchmarks.turns import Side, take_turns
from datamodules.collect.processes import WorkerRollouts
from datamodules.collect.ray_actors import RayRollouts
from datamodules.collect.rollouts import Collection, Rollouts
from datamodules.envs.simulation import spaces_of
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions, RayOptions
from gipo.policies import Policy, TokenPolicy

TASK = simulation("reach-v3")
BOUND = 0.8  # of a worker process, an actor has to reach: what Ray adds must not be what limits
WORKERS = (1, 2)


def run(turns: int = 8, num_envs: int = 16, steps: int = 32) -> dict[str, Any]:
    """Ratios over `turns` turns of segments of `steps` steps in each of `num_envs` simulators a worker."""
    with closing(TASK.make(1, seed=0)) as env:
        policy = TokenPolicy(spaces_of(env))
    sources: dict[str, Rollouts] = {}
    with ExitStack() as stack:
        for workers in WORKERS:
            what = Collection(TASK, num_envs, workers * num_envs * steps, policy, seed=1)
            # More places than cores, so that both groups of actors fit on one machine.
            options = CollectorOptions(workers=workers, worker_timeout=120.0, ray=RayOptions(cpus=0.1))
            for kind, rollouts in (("processes", WorkerRollouts), ("ray", RayRollouts)):
                sources[f"{kind}_{workers}"] = stack.enter_context(closing(rollouts(what, options)))
        sides = take_turns({name: _segment(source, policy) for name, source in sources.items()}, turns)
        frames = sources["ray_1"].collect()
    ratios = {f"{name}_ratio": side.ratio(sides["processes_1"]) for name, side in sides.items()}
    return {
        **{f"{name}_steps_per_s": side.rate for name, side in sides.items()},
        **ratios,
        "ray_to_processes_2": sides["ray_2"].ratio(sides["processes_2"]),
        **_sizes(frames, policy),
        "cores": os.cpu_count(),
        "bound": {"ray_1_ratio": BOUND},
        "ok": ratios["ray_1_ratio"] >= BOUND,
    }


def _segment(source: Rollouts, policy: Policy) -> Callable[[Side], None]:
    """New weights to every worker, and a segment from all of them."""

    def work(side: Side) -> None:
        side.start()
        source.update(policy)
        side.stop(len(source.collect()))

    return work


def _sizes(frames: TensorDict, policy: Policy) -> dict[str, float]:
    weights, began = io.BytesIO(), time.perf_counter()
    torch.save(policy.state_dict(), weights)
    return {
        "bytes_per_step": frames.bytes() / len(frames),
        "bytes_of_weights": float(weights.tell()),
        "seconds_to_pack_weights": time.perf_counter() - began,
    }
