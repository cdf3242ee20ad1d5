"""Environment steps per second of collection from state-only LIBERO, policy in the loop, to bare loops.

`bare` steps as many simulators of the same task by random actions and does nothing else; `as_shipped` does so with
LIBERO's own environment (robosuite's step and observations): what a user has without gipo, but for one of three forward
computations a substep, which is left out of these simulators (so that the ratio is too low by some sixth). They take
turns in one run.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

from benchmarks.turns import Side, take_turns
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.libero.simulator import ACTION_SIZE, LiberoSimulator
from datamodules.envs.libero.states import LiberoStateEnv
from datamodules.envs.simulation import spaces_of
from datamodules.envs.tasks import simulation
from gipo.policies import TokenPolicy

BOUND = 0.8
TASK = simulation("libero_object/1")


def run(turns: int = 8, num_envs: int = 4, steps: int = 8) -> dict[str, Any]:
    """Ratios over `turns` turns of `steps` steps of `num_envs` simulators."""
    with closing(TASK.make(num_envs, seed=0)) as env:
        assert isinstance(env, LiberoStateEnv)
        env.reset()
        simulators = [env.simulator(index) for index in range(num_envs)]
        policy = TokenPolicy(spaces_of(env))
        with closing(InProcessRollouts(Collection(TASK, num_envs, num_envs * steps, policy, seed=1))) as source:

            def collect(side: Side) -> None:
                side.start()
                side.stop(len(source.collect()))

            slices = {
                "collect": collect,
                "bare": _loop(simulators, steps, lambda simulator, action: simulator.step(action)),
                "as_shipped": _loop(simulators, steps, lambda simulator, action: simulator.domain.step(action)),
            }
            sides = take_turns(slices, turns)
    ratio = sides["collect"].ratio(sides["bare"])
    return {
        **{f"{name}_steps_per_s": side.rate for name, side in sides.items()},
        "ratio": ratio,
        "ratio_to_shipped": sides["collect"].ratio(sides["as_shipped"]),
        "processor_ratio": sides["collect"].processor_ratio(sides["bare"]),
        "bound": BOUND,
        "ok": ratio >= BOUND,
    }


def _loop(
    simulators: list[LiberoSimulator], steps: int, act: Callable[[LiberoSimulator, np.ndarray], object]
) -> Callable[[Side], None]:
    """`steps` random actions in every simulator."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, len(simulators), ACTION_SIZE))

    def work(side: Side) -> None:
        side.start()
        for row in actions:
            for simulator, action in zip(simulators, row, strict=True):
                act(simulator, action)
        side.stop(steps * len(simulators))

    return work
