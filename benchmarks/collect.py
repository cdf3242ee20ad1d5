"""Environment steps per second of the collectors, policy in the loop, to a bare loop of random actions.

The bare loop steps as many simulators of the same task in one process, resets them when an episode is over, and does
nothing else; it takes turns with every collector in one run. `as_shipped` is the same loop over MetaWorld not
hastened, the reference of the two workers: what a user has without gipo, but for models without what is only seen.
`in_process` has the default network, `in_process_authors` the authors' larger one, `native` and `native_two_threads`
the default one and EnvPool's simulators: by processor time one core's worth of them to one of `in_process`, and by the
clock what the second thread adds. Two workers share the same number of simulators; their figures mean something only
where two cores are idle, so read them beside `load_average_before`.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.turns import Side, take_turns
from datamodules.collect.asynchronous import AsynchronousRollouts
from datamodules.collect.processes import WorkerRollouts
from datamodules.collect.rollouts import Collection, InProcessRollouts, Rollouts
from datamodules.envs.envpool import NativeMetaWorldTask
from datamodules.envs.metaworld import MetaWorldEnv
from datamodules.envs.simulation import spaces_of
from datamodules.envs.tasks import simulation
from datamodules.options import CollectorOptions
from gipo.networks import SharedEncoder
from gipo.policies import TokenPolicy

BOUNDS = {"in_process": 0.7, "two_workers": 1.3, "native": 1.8}
TASK = simulation("reach-v3")
NATIVE = NativeMetaWorldTask(TASK.name)
WORKERS = 2


def run(turns: int = 30, num_envs: int = 32, steps: int = 16) -> dict[str, Any]:
    """Ratios over `turns` turns of `steps` steps of `num_envs` simulators; fewer and longer ones for workers."""
    with closing(TASK.make(num_envs, seed=0)) as env:
        here = _in_process(env, turns, steps)
        there = _workers(env, max(turns // 3, 1), 2 * steps)
    ratios = {name: side.ratio(sides["bare"]) for sides in (here, there) for name, side in sides.items()}
    shipped = {f"{name}_to_shipped": there[name].ratio(there["as_shipped"]) for name in there if "two" in name}
    native = here["native"].processor_ratio(here["in_process"])
    judged = {"in_process": ratios["in_process"], "two_workers": max(shipped.values()), "native": native}
    return {
        **{f"{name}_steps_per_s": side.rate for name, side in (there | here).items()},
        **{f"{name}_ratio": ratio for name, ratio in ratios.items() if name != "bare"},
        **shipped,
        "in_process_processor_ratio": here["in_process"].processor_ratio(here["bare"]),
        "in_process_authors_processor_ratio": here["in_process_authors"].processor_ratio(here["bare"]),
        "native_to_in_process_processor_ratio": native,
        "native_two_threads_to_one": here["native_two_threads"].ratio(here["native"]),
        "bound": BOUNDS,
        "ok": all(judged[name] >= bound for name, bound in BOUNDS.items()),
    }


def _in_process(env: MetaWorldEnv, turns: int, steps: int) -> dict[str, Side]:
    num_envs = len(env.simulators)
    policies = {
        "in_process": TokenPolicy(spaces_of(env)),
        "in_process_authors": TokenPolicy(spaces_of(env), bins=256, network=SharedEncoder, normalise=False),
    }
    with ExitStack() as stack:
        slices = {"bare": _bare(env, steps)}
        for name, policy in policies.items():
            sides = {name: TASK}
            if name == "in_process":
                sides |= {"native": NATIVE, "native_two_threads": replace(NATIVE, threads=2)}
            for side, task in sides.items():
                source = InProcessRollouts(Collection(task, num_envs, num_envs * steps, policy, seed=1))
                slices[side] = _segment(stack.enter_context(closing(source)))
        return take_turns(slices, turns)


def _workers(env: MetaWorldEnv, turns: int, steps: int) -> dict[str, Side]:
    policy, per_worker = TokenPolicy(spaces_of(env)), len(env.simulators) // WORKERS
    frames = per_worker * steps
    whole = Collection(TASK, per_worker, WORKERS * frames, policy, seed=1)
    sync = WorkerRollouts(whole, CollectorOptions(workers=WORKERS))
    with closing(sync):
        asynchronous = AsynchronousRollouts(
            replace(whole, frames=frames), CollectorOptions(workers=WORKERS, asynchronous=True)
        )
        with closing(asynchronous):
            shipped = MetaWorldEnv(TASK.name, len(env.simulators))
            for simulator in shipped.simulators:
                del simulator._get_quat_objects, simulator.touching_object  # back to the class's own
            slices = {
                "bare": _bare(env, steps),
                "as_shipped": _bare(shipped, steps),
                "two_workers_sync": _segment(sync),
                "two_workers_async": _two_segments_each(asynchronous),
            }
            return take_turns(slices, turns)


def _bare(env: MetaWorldEnv, steps: int) -> Callable[[Side], None]:
    """`steps` random actions in every simulator of `env`, without TensorDict, policy or collector."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, len(env.simulators), 4)).astype(np.float32)
    env.reset()

    def work(side: Side) -> None:
        side.start()
        for row in actions:
            for simulator, action in zip(env.simulators, row, strict=True):
                truncated = simulator.step(action)[3]
                if truncated:
                    simulator.reset()
        side.stop(actions.shape[0] * actions.shape[1])

    return work


def _segment(source: Rollouts) -> Callable[[Side], None]:
    """One segment of a source that rests between two segments."""

    def work(side: Side) -> None:
        side.start()
        side.stop(len(source.collect()))

    return work


def _two_segments_each(source: Rollouts) -> Callable[[Side], None]:
    """Two segments of every asynchronous worker.

    What the workers had ready does not count, and the next side waits until they rest again.
    """

    def work(side: Side) -> None:
        for _ in range(WORKERS):
            source.collect()
        side.start()
        elapsed = side.stop(sum(len(source.collect()) for _ in range(2 * WORKERS)))
        time.sleep(elapsed / 2)

    return work
