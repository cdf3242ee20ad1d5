"""The evaluation that every peer gets: sampled episodes of MetaWorld's own simulator, on the same goals every time.

The goals are those that `gipo fit` evaluates on by default. Neither torch nor TorchRL is imported: a rival does not
have them by our doing.
"""

from collections.abc import Callable

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from gipo.common.simulators.metaworld import show_goal

EPISODES, SEED = 20, 1_000_003
Act = Callable[[np.ndarray], np.ndarray]  # observations [N, O] → actions [N, D]


class Evaluation:
    """Success on fixed goals; simulators are made when first needed.

    Args:
        task: a `-v3` name.
        num_envs: simulators, a divisor of the number of episodes.
    """

    def __init__(self, task: str, num_envs: int = 2):
        self.task, self.num_envs = task, num_envs
        self._simulators: list = []

    def __call__(self, act: Act) -> float:
        """Share of the episodes that succeed at any step."""
        waves = [range(first, first + self.num_envs) for first in range(0, EPISODES, self.num_envs)]
        return float(np.mean([self._succeeded(act, numbers) for numbers in waves]))

    def begin(self, numbers: range) -> np.ndarray:
        """The first observations [N, O] of the episodes with these numbers."""
        if not self._simulators:
            self._simulators = [ALL_V3_ENVIRONMENTS[self.task]() for _ in range(self.num_envs)]
            for simulator in self._simulators:
                show_goal(simulator)
        for simulator, number in zip(self._simulators, numbers, strict=True):
            simulator.np_random = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(number,)))
        return np.stack([simulator.reset()[0] for simulator in self._simulators]).astype(np.float32)

    def _succeeded(self, act: Act, numbers: range) -> np.ndarray:
        observations = self.begin(numbers)
        success = np.zeros(len(numbers), bool)
        for _ in range(self._simulators[0].max_path_length):
            actions = act(observations)
            stepped = [one.step(action) for one, action in zip(self._simulators, actions, strict=True)]
            observations = np.stack([step[0] for step in stepped]).astype(np.float32)
            success |= np.array([step[-1]["success"] > 0 for step in stepped])
        return success
