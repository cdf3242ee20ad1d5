"""Seeds of environments, and of the episodes of an evaluation: by their number, on however many simulators."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchrl.envs import EnvBase, TransformedEnv


def seed_env(env: EnvBase, seed: int) -> None:
    """Seed an environment without touching torch's global generator, which `EnvBase.set_seed` reseeds."""
    with torch.random.fork_rng(devices=[]):
        env.set_seed(seed)


def episode_seed(seed: int, number: int) -> int:
    """32 bits for episode `number` of the evaluation with this seed."""
    return int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1)[0])


def begin_episodes(env: EnvBase, numbers: Sequence[int], seed: int) -> None:
    """Have the next full reset begin these episodes, one in every simulator.

    Where the environment can (`begin_with`, see `datamodules.envs.simulation`), each depends on its number alone;
    elsewhere all simulators are seeded together, by the first number.
    """
    inner: Any = env
    while isinstance(inner, TransformedEnv):
        inner = inner.base_env
    # Statically, as an environment over processes claims to have whatever it is asked for.
    if inspect.getattr_static(inner, "begin_with", None) is None:
        seed_env(env, episode_seed(seed, numbers[0]))
    else:
        inner.begin_with(numbers, seed)
