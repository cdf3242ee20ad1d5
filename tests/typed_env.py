"""Environments whose spaces are of any type; each remembers what it was sent."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

SENT: list[np.ndarray] = []  # to the environment made last, since its last reset
SPACES = {
    "Whole-v0": (Box(-3, 3, (1,), np.int64), Box(-1, 1, (2,), np.float32)),
    "Bytes-v0": (Box(0, 255, (1,), np.uint8), Box(0, 255, (2,), np.uint8)),
    "Double-v0": (Box(-0.35, 0.35, (1,), np.float64), Box(-1, 1, (2,), np.float64)),
    "Half-v0": (Box(-0.1, 0.1, (1,), np.float16), Box(0, 1, (2,), np.float16)),
    "Counts-v0": (Box(-1, 1, (1,), np.float32), Box(-5, 5, (2,), np.int32)),
}


class TypedEnv(gymnasium.Env):
    """Refuses every action that is not in its space; observes the largest values."""

    metadata = {"render_fps": 50}  # noqa: RUF012

    def __init__(self, name: str):
        self.action_space, self.observation_space = SPACES[name]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        SENT.clear()
        return self.observation_space.high.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        SENT.append(action)
        return self.observation_space.high.copy(), 0.0, False, False, {}


def register() -> None:
    """Make the ids known; safe to call twice."""
    for name in SPACES:
        if name not in gymnasium.registry:
            gymnasium.register(name, TypedEnv, max_episode_steps=20, kwargs={"name": name})
