"""Episodes of logs as `estimators` takes them: log-ratios, rewards and a baseline, in rows and columns."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor

from gipo.commands.estimate.baseline import fitted
from gipo.commands.estimate.estimators import LARGEST, Array, LoggedEpisodes
from gipo.common.errors import UserError
from gipo.common.transition import PERSON


@dataclass(frozen=True)
class Logged:
    """Whole episodes of logs, decision by decision, in the order of the logs.

    Args:
        log_ratio: x [M] of every decision, nats, of its whole action; 0 where nobody sampled it.
        reward: [M], discounted to the beginning of its episode.
        seen: [M, O] what the baseline is a function of.
        row: [M] which episode.
        column: [M] which decision of it.
        success: [n] of the episodes, 1 or 0; −1 where nobody said.
        persons: episodes in which a person acted.
        broken: episodes that are left out, because the logs have not all of their steps.
        kl: mean over decisions of −x, nats: KL(μ‖π).
    """

    log_ratio: Array
    reward: Array
    seen: Array
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    success: NDArray[np.int64]
    persons: int
    broken: int
    kl: float

    def __len__(self) -> int:
        return len(self.success)

    def episodes(self, *rewards: Array) -> list[tuple[LoggedEpisodes, float]]:
        """Rows and columns of each kind of reward [M], and how much of the variance of G the baseline explains."""
        x, padded = self._padded(self.log_ratio), [self._padded(reward) for reward in rewards]
        bare = [LoggedEpisodes(x, reward, np.zeros_like(x)) for reward in padded]
        to_go = np.stack([each.to_go[self.row, self.column] for each in bare], -1)
        expected, explained = fitted(np.column_stack((self.seen, self.column)), to_go, self.row)
        baselines = map(self._padded, expected.T)
        told = [each._replace(baseline=baseline) for each, baseline in zip(bare, baselines, strict=True)]
        return list(zip(told, explained.tolist(), strict=True))

    @property
    def outcome(self) -> Array:
        """A reward [M] of 1 for the last decision of a success."""
        last = np.append(self.row[1:] != self.row[:-1], True)
        return np.where(last, self.success[self.row], 0).astype(np.float64)

    def _padded(self, values: Array) -> Array:
        found = np.zeros((len(self), int(self.column.max()) + 1))
        found[self.row, self.column] = values
        return found


def logged(steps: TensorDictBase, frames: TensorDictBase, log_ratio: Tensor, discount: float) -> Logged:
    """What the logs say, of the episodes that they have from beginning to end.

    Args:
        steps: [S] steps as the store has them.
        frames: [M] transitions of them that a policy learns from: the same, or decisions on chunks.
        log_ratio: x [M, D] or [M, H, D] of the policy that is asked about, nats.
        discount: γ, of a step.

    Raises:
        UserError: when no episode is whole, or a log-ratio is no number.
    """
    whole = _whole(steps["episode"], steps["step"])
    kept = torch.isin(frames["episode"], whole)
    if not kept.any():
        raise UserError("the logs have no episode from its first step on without a gap; nothing can be estimated")
    frames, x = frames[kept], log_ratio[kept].double()
    valid = frames["valid"]
    x = torch.where(valid.unsqueeze(-1), x, 0.0).flatten(1).sum(1)
    if x.isnan().any():
        raise UserError("a log-ratio is no number: the policy's weights, or the logged log-probs, are damaged")
    _, row, sizes = frames["episode"].unique_consecutive(return_inverse=True, return_counts=True)
    column = torch.cat([torch.arange(size) for size in sizes.tolist()])
    first = sizes.cumsum(0) - sizes
    chosen = valid.flatten(1).any(1) if valid.ndim > 1 else valid
    people = (frames["source"] == PERSON).flatten(1).any(1) if valid.ndim > 1 else frames["source"] == PERSON
    return Logged(
        log_ratio=x.clamp(-LARGEST, LARGEST).numpy(),
        reward=_discounted(frames, column, discount).numpy(),
        seen=_seen(frames).double().numpy(),
        row=row.numpy(),
        column=column.numpy(),
        success=frames["success"][first].long().numpy(),
        persons=len(row[people].unique()),
        broken=len(steps["episode"].unique()) - len(sizes),
        kl=float(-x[chosen].mean()) if chosen.any() else 0.0,
    )


def _whole(episode: Tensor, step: Tensor) -> Tensor:
    """The numbers of the episodes that begin with step 0 and have no gap, of steps [S] one after another."""
    names, sizes = episode.unique_consecutive(return_counts=True)
    place = torch.cat([torch.arange(size) for size in sizes.tolist()])
    return names[~torch.isin(names, episode[step != place])]


def _discounted(frames: TensorDictBase, column: Tensor, discount: float) -> Tensor:
    """Rewards [M] discounted to the beginning of their episode; those of a chunk by step, and summed."""
    reward = frames["next", "reward"].double()
    if reward.ndim == 1:
        return reward * discount**column
    taken = frames["executed"].sum(1)
    passed = taken.cumsum(0) - taken
    begun = passed - passed[torch.arange(len(column)) - column]
    steps = begun.unsqueeze(1) + torch.arange(reward.shape[1])
    return (reward * frames["executed"] * discount**steps).sum(1)


def _seen(frames: TensorDictBase) -> Tensor:
    """Numbers [M, O] that were observed; where a policy sees, those beside the images."""
    observation = frames["observation"]
    return observation["state"] if isinstance(observation, TensorDictBase) else observation
