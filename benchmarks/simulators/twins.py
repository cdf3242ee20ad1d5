"""Simulators of MetaWorld that begin where those of a pool of EnvPool do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from datamodules.envs.metaworld import MetaWorldEnv
from gipo.common.simulators.native import Answer


class Twin:
    """A simulator of MetaWorld that begins every episode where the one of EnvPool with this seed does.

    EnvPool draws with C++'s `mt19937` and `uniform_real_distribution`, of which NumPy has the first.

    Args:
        simulator: of the task.
        drawing: another, in which vectors are drawn until the task likes them.
        seed: of EnvPool's.
    """

    def __init__(self, simulator: Any, drawing: Any, seed: int):
        self.env, self._drawing = simulator, drawing
        self._generator = np.random.RandomState(seed)
        self._last: np.ndarray | None = None

    def begin(self) -> np.ndarray:
        """Begin the next episode: its first observation [39]."""
        # The hand settles among objects where they were before: in EnvPool those of the last episode.
        if self._last is not None:
            self.env.reset_model()
        self._drawing._get_state_rand_vec = self._draw
        self._drawing.reset_model()
        assert self._last is not None
        self.env._get_state_rand_vec = self._last.copy
        self.env.curr_path_length = 0
        observation, _ = MujocoEnv.reset(self.env)
        self.env._prev_obs = observation[:18].copy()
        observation[18:36] = observation[:18]
        return np.asarray(observation)

    def nudge(self, by: float, rng: np.random.Generator) -> None:
        """Move every joint by about so many metres and radians."""
        data = self.env.data
        self.env.set_state(data.qpos + by * rng.standard_normal(data.qpos.shape), data.qvel.copy())

    def _draw(self) -> np.ndarray:
        space = self._drawing._random_reset_space
        words = self._generator.randint(0, 2**32, size=(len(space.low), 2), dtype=np.uint32).astype(float)
        # u = (w₀ + 2³² w₁) / 2⁶⁴
        self._last = (words[:, 0] + 2.0**32 * words[:, 1]) / 2.0**64 * (space.high - space.low) + space.low
        return self._last


class Twins:
    """Twins of a pool's simulators, with the interface of a pool.

    Args:
        task: one of the fifty.
        seeds: of the pool's simulators [N].
        nudge: by how many metres and radians they begin beside.
    """

    def __init__(self, task: str, seeds: Sequence[int], nudge: float = 0.0):
        self._env = MetaWorldEnv(task, len(seeds) + 1)
        *simulators, drawing = self._env.simulators
        self._twins = [Twin(simulator, drawing, seed) for simulator, seed in zip(simulators, seeds, strict=True)]
        self._nudge, self._rng = nudge, np.random.default_rng(0)

    def reset(self) -> np.ndarray:
        """Begin new episodes: their first observations [N, 39]."""
        observations = np.stack([twin.begin() for twin in self._twins])
        for twin in self._twins if self._nudge else ():
            twin.nudge(self._nudge, self._rng)
        return observations

    def step(self, actions: np.ndarray) -> Answer:
        """Step each by its action [N, 4]."""
        found = [twin.env.step(action) for twin, action in zip(self._twins, actions, strict=True)]
        observation, reward, terminated, truncated, info = zip(*found, strict=True)
        success = np.array([each["success"] > 0 for each in info])
        return Answer(np.stack(observation), np.array(reward), np.array(terminated), np.array(truncated), success)

    def close(self) -> None:
        """Free the simulators."""
        self._env.close()
