"""Steps of MetaWorld's simulators as `gipo` makes them, to the same as they ship: by processor time, in turns.

`hastened` is what of it comes from `hasten` alone, `lean` what comes from models without what is only seen; `native`
is lean models to whole ones in EnvPool. Random actions; torch is loaded, as in a run that learns.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.turns import Side, take_turns
from datamodules.envs.metaworld import MetaWorldEnv, environments
from gipo.common.simulators import native
from gipo.common.simulators.metaworld import hasten, show_goal

# Two that ask at every step what the fingers press on, and two that do not.
TASKS = ("coffee-push-v3", "sweep-v3", "reach-v3", "drawer-open-v3")
BOUND = 1.5  # of the hastened ones that ask
NUM_ENVS = 4  # of EnvPool's


def run(turns: int = 10, steps: int = 200) -> dict[str, Any]:
    """Ratios of `turns` turns of `steps` steps, for each task."""
    found = {task: _of_task(task, turns, steps) for task in TASKS}
    return {"tasks": found, "bound": BOUND, "ok": all(found[task]["hastened"] >= BOUND for task in TASKS[:2])}


def _of_task(task: str, turns: int, steps: int) -> dict[str, float]:
    own, hastened = environments()[task](), environments()[task]()
    hasten(hastened)
    with closing(MetaWorldEnv(task, 1)) as env:
        simulators = {"own": own, "hastened": hastened, "ours": env.simulators[0]}
        pools = {"lean": _pool(task)}
        with patch.object(native, "lean_models", str):
            pools["whole"] = _pool(task)
        slices = {name: _steps(simulator, steps) for name, simulator in simulators.items()}
        sides = take_turns(slices | {name: _pooled(pool, steps) for name, pool in pools.items()}, turns)
    return {
        "own_ms": 1000 / sides["own"].processor_rate,
        "hastened": sides["hastened"].processor_ratio(sides["own"]),
        "lean": sides["ours"].processor_ratio(sides["hastened"]),
        "native": sides["lean"].processor_ratio(sides["whole"]),
    }


def _steps(simulator: Any, steps: int) -> Callable[[Side], None]:
    show_goal(simulator)

    def work(side: Side) -> None:
        simulator.np_random = np.random.default_rng(0)
        simulator.reset()
        side.start()
        for action in _actions(steps, 1):
            simulator.step(action[0])
        side.stop(steps)

    return work


def _pool(task: str) -> native.Pool:
    return native.Pool(native.metaworld_id(task), range(NUM_ENVS))


def _pooled(pool: native.Pool, steps: int) -> Callable[[Side], None]:
    def work(side: Side) -> None:
        pool.reset()
        side.start()
        for actions in _actions(steps, NUM_ENVS):
            pool.step(actions)
        side.stop(steps * NUM_ENVS)

    return work


def _actions(steps: int, num_envs: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (steps, num_envs, 4)).astype(np.float32)
