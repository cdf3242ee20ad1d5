"""The evaluation that every entrant gets: sampled episodes of MetaWorld's own simulator, on the same goals every time.

The goals are those that `gipo fit` evaluates and `gipo test` tests on by default. Neither torch nor TorchRL is
imported: a rival does not have them by our doing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

from gipo.common.simulators.metaworld import hasten, show_goal

EPISODES, SEED = 20, 1_000_003
TEST_EPISODES, TEST_SEED = 50, SEED + 1
Act = Callable[[np.ndarray], np.ndarray]  # observations [N, O] → actions [N, D]


class Episodes(NamedTuple):
    """What came of episodes [N]: success at any step, success at the last, and return."""

    success: np.ndarray
    success_last: np.ndarray
    returned: np.ndarray


class Judge:
    """Episodes on fixed goals; simulators are made when first needed.

    Args:
        task: a `-v3` name.
        num_envs: simulators, each of which plays one episode after another.
    """

    def __init__(self, task: str, num_envs: int = 10):
        self.task, self.num_envs = task, num_envs
        self._simulators: list = []

    def __call__(self, act: Act) -> float:
        """Share of the episodes of an evaluation that succeed at any step, where each of them ends."""
        return float(self._all(act, EPISODES, SEED, to_the_end=False).success.mean())

    def test(self, act: Act) -> Episodes:
        """The episodes of the final test, on goals of their own."""
        return self._all(act, TEST_EPISODES, TEST_SEED, to_the_end=True)

    def begin(self, numbers: Sequence[int], seed: int = SEED) -> np.ndarray:
        """The first observations [N, O] of the episodes with these numbers."""
        if not self._simulators:
            self._simulators = [ALL_V3_ENVIRONMENTS[self.task]() for _ in range(self.num_envs)]
            for simulator in self._simulators:
                show_goal(simulator)
                hasten(simulator)
        for simulator, number in zip(self._simulators, numbers, strict=False):
            simulator.np_random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        return np.stack([one.reset()[0] for one in self._simulators[: len(numbers)]]).astype(np.float32)

    def _all(self, act: Act, episodes: int, seed: int, to_the_end: bool) -> Episodes:
        waves = [range(first, min(first + self.num_envs, episodes)) for first in range(0, episodes, self.num_envs)]
        found = [self._wave(act, numbers, seed, to_the_end) for numbers in waves]
        return Episodes(*map(np.concatenate, zip(*found, strict=True)))

    def _wave(self, act: Act, numbers: Sequence[int], seed: int, to_the_end: bool) -> Episodes:
        observations = self.begin(numbers, seed)
        running = self._simulators[: len(numbers)]
        success, last, returned = np.zeros(len(numbers), bool), np.zeros(len(numbers), bool), np.zeros(len(numbers))
        for _ in range(running[0].max_path_length):
            actions = act(observations)
            for index in np.flatnonzero(~success | to_the_end):
                observations[index], reward, *_, info = running[index].step(actions[index])
                returned[index] += reward
                last[index] = info["success"] > 0
            success |= last
            if success.all() and not to_the_end:
                break
        return Episodes(success, last, returned)
