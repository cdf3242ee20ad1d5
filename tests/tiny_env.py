"""Gymnasium environments for tests: short episodes, and a reward that breaks."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class TinyEnv(gymnasium.Env):
    """Move a point to the origin; ends when close (terminated) or after the time limit (truncated).

    Args:
        bad_step: from this step on, over all episodes, the reward is `bad_reward`.
        bad_reward: what a broken environment returns.
    """

    observation_space = Box(-10, 10, (3,), np.float32)
    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, bad_step: int = 10**9, bad_reward: float = float("nan")):
        self.bad_step, self.bad_reward = bad_step, bad_reward
        self.position, self.steps, self.total = np.zeros(2, np.float32), 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-1, 1, 2).astype(np.float32), 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.total += 1
        self.position = (self.position + 0.3 * action).clip(-2, 2).astype(np.float32)
        distance = float(np.linalg.norm(self.position))
        reward = self.bad_reward if self.total >= self.bad_step else -distance
        return self._observation(), reward, distance < 0.1, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([*self.position, self.steps / 10], np.float32)


class Endless(TinyEnv):
    """Has no time limit, and never ends."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, *_ = super().step(action)
        return observation, reward, False, False, {}


class Brief(TinyEnv):
    """Ends by what is done in it: an episode is as long as its policy makes it."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, *_ = super().step(action)
        return observation, reward, bool(action[0] > 0.6), False, {}


class ResetDraws(TinyEnv):
    """Begins anywhere, by the process's own generator of numbers."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = np.random.uniform(-1, 1, 2).astype(np.float32)  # noqa: NPY002 (as many do)
        return self._observation(), {}


class StepDraws(TinyEnv):
    """Is pushed about, by the process's own generator of numbers."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return super().step(action + np.random.normal(0, 0.1, 2))  # noqa: NPY002 (as many do)


def register() -> None:
    """Make the ids known; safe to call twice."""
    breaks = {"bad_step": 8}  # the seventh of a run: one is taken when it is made
    variants = {"Tiny-v0": {}, "NaNReward-v0": breaks, "InfReward-v0": {**breaks, "bad_reward": np.inf}}
    for name, options in variants.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, TinyEnv, max_episode_steps=12, kwargs=options)
    if "Endless-v0" not in gymnasium.registry:
        gymnasium.register("Endless-v0", Endless)
        gymnasium.register("Brief-v0", Brief, max_episode_steps=12)
        gymnasium.register("ResetDraws-v0", ResetDraws, max_episode_steps=4)
        gymnasium.register("StepDraws-v0", StepDraws, max_episode_steps=4)
