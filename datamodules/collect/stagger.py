"""Episodes out of phase: every simulator's first episode is cut at a length of its own.

Simulators that start together stay together where episodes end by a time limit: the newest iteration then holds one
slice of every episode and no other, so that the age of data and the phase of its episode are the same thing.
"""

from dataclasses import dataclass

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Binary, TensorSpec
from torchrl.envs import EnvBase, Transform, TransformedEnv

from datamodules.envs.simulation import Wrapped
from gipo.common.errors import UserError

NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Staggered(Wrapped):
    """A task whose simulators, whenever they are seeded, begin with an episode of another length each.

    Such an episode is truncated, not terminated, and `staggered` says so where it ends: its value is bootstrapped, and
    its return is not one of a whole episode. Evaluation is the task's own.

    Raises:
        UserError: the task's episodes have no limit, so that nothing says how far they are to be moved apart.
    """

    def __post_init__(self) -> None:
        if self.task.horizon is None:
            raise UserError(
                f"data.collector.stagger=true moves episodes apart within their limit, and {self.name} has none: "
                "set data.collector.max_steps, or leave it out"
            )

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """`num_envs` simulators of the task whose first episodes have a length of their own each."""
        assert self.task.horizon is not None
        env = StaggeredEnv(self.task.make(num_envs, seed), FirstEpisodes(self.task.horizon), auto_unwrap=False)
        env.transform.arm(num_envs, seed)
        return env


class StaggeredEnv(TransformedEnv):
    """An environment whose `FirstEpisodes` are drawn anew whenever it is seeded: at the start, and at every restart."""

    def set_seed(self, seed: int | None = None, static_seed: bool = False) -> int | None:
        """Seed the simulators, and the lengths of the episodes that they begin with."""
        self.transform.arm(self.batch_size[0], seed)
        following: int | None = super().set_seed(seed, static_seed)
        return following


class FirstEpisodes(Transform):
    """Truncates the episode that is running when it is armed, after so many steps; those that follow are whole.

    Args:
        horizon: decisions after which an episode is truncated anyhow.
    """

    def __init__(self, horizon: int):
        super().__init__()
        self.horizon = horizon
        self._left = torch.empty(0, dtype=torch.int64)  # decisions until the cut [N, 1]

    def arm(self, count: int, seed: int | None) -> None:
        """Draw the lengths of the episodes that `count` simulators begin with."""
        self._left = first_lengths(count, self.horizon, 0 if seed is None else seed).unsqueeze(-1)

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """Add `staggered` [N, 1] bool: whether an episode ends here only because it was the first."""
        shape = (*observation_spec.shape, 1)
        observation_spec["staggered"] = Binary(1, shape=shape, dtype=torch.bool)
        return observation_spec

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return tensordict_reset.set("staggered", torch.zeros(*tensordict_reset.batch_size, 1, dtype=torch.bool))

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        left, ended = self._left - 1, next_tensordict["done"]
        cut = (left <= 0) & ~ended
        next_tensordict.update(
            {"staggered": cut, "truncated": next_tensordict["truncated"] | cut, "done": ended | cut}, inplace=False
        )
        self._left = torch.where(cut | ended, NEVER, left)
        return next_tensordict


def first_lengths(count: int, horizon: int, seed: int) -> Tensor:
    """Lengths [N] of the first episodes, evenly spread over 1 … `horizon` and dealt out in random order."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, count, horizon]))
    # one length in every N-th part of the horizon
    share = (rng.permutation(count) + rng.random()) / count
    return torch.from_numpy(1 + np.floor(share * horizon).astype(np.int64)).clamp(max=horizon)
