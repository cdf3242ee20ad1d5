"""Episodes of logs as `estimators` takes them: log-ratios, rewards and a baseline, in rows and columns."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tensordict import TensorDictBase
from torch import Tensor

from datamodules.ingest import Store
from datamodules.replay.decisions import places
from gipo.commands.estimate.baseline import fitted
from gipo.commands.estimate.estimators import LARGEST, Array, LoggedEpisodes
from gipo.common.errors import UserError
from gipo.common.transition import HOLD, PERSON

CELLS = 40_000_000  # rows times columns: some 6 GB


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
        sampled: decisions that a policy sampled, which alone have a ratio.
        unsampled: episodes that are left out, because no policy sampled in them, nor was to when they ended.
        persons: episodes in which a person acted.
        parts: episodes that are left out, because the logs have them only in part.
        copies: episodes that are left out, because they are another one, driven again with the same noise.
        kl: mean over the sampled decisions of eˣ − 1 − x, nats, x at most 5: an estimate of KL(μ‖π).
    """

    log_ratio: Array
    reward: Array
    seen: Array
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    success: NDArray[np.int64]
    sampled: int
    unsampled: int
    persons: int
    parts: int
    copies: int
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


def logged(store: Store, frames: TensorDictBase, log_ratio: Tensor, discount: float) -> Logged:
    """What the logs say, of the episodes that they have from beginning to end.

    Args:
        store: of the logs.
        frames: [M] transitions of it that a policy learns from: its steps, or decisions on chunks.
        log_ratio: x [M, D] or [M, H, D] of the policy that is asked about, nats.
        discount: γ, of a step.

    Raises:
        UserError: when no episode is whole, nobody sampled a decision, a log-ratio is no number, or episodes are so
            many and one so long that rows and columns of them would not fit into memory.
    """
    valid = frames["valid"].view(len(frames), -1).any(1)
    found = _whole(store, frames)
    whole = found[~torch.isin(found, torch.tensor(store.facts.copies, dtype=found.dtype))]
    told = _told(whole, frames, valid)
    kept = torch.isin(frames["episode"], told)
    frames, sampled, x = frames[kept], valid[kept], log_ratio[kept].double()
    x = torch.where(frames["valid"].unsqueeze(-1), x, 0.0).flatten(1).sum(1)
    if x.isnan().any():
        raise UserError("a log-ratio is no number: the policy's weights, or the logged log-probs, are damaged")
    persons = (frames["source"] == PERSON).view(len(x), -1).any(1)
    _, row, sizes = frames["episode"].unique_consecutive(return_inverse=True, return_counts=True)
    column = places(frames["episode"])
    _refuse_too_large(len(sizes), int(sizes.max()))
    return Logged(
        log_ratio=x.clamp(-LARGEST, LARGEST).numpy(),
        reward=_discounted(frames, column, discount).numpy(),
        seen=_seen(frames).double().numpy(),
        row=row.numpy(),
        column=column.numpy(),
        success=frames["success"][sizes.cumsum(0) - sizes].long().numpy(),
        sampled=int(sampled.sum()),
        unsampled=len(whole) - len(told),
        persons=len(row[persons].unique()),
        parts=store.facts.episodes - len(found),
        copies=len(found) - len(whole),
        kl=_kl(x[sampled]),
    )


def _told(whole: Tensor, frames: TensorDictBase, sampled: Tensor) -> Tensor:
    """Select of the numbers of whole episodes those in which a policy sampled, or was to when they ended.

    That is while control was being handed to it: which episodes end there hangs on how they go.
    """
    if not len(whole):
        raise UserError("the logs have no episode from its first step to its end; nothing can be estimated")
    steps = len(frames)
    handed = (frames["source"] == HOLD).view(steps, -1).all(1)
    some, others = frames["episode"][sampled], frames["episode"][~handed]
    if not torch.isin(whole, some).any():
        raise UserError("no decision in these logs was sampled by a policy; every policy would seem to do as well")
    return whole[torch.isin(whole, some) | ~torch.isin(whole, others)]


def _refuse_too_large(episodes: int, longest: int) -> None:
    if episodes * longest > CELLS:
        raise UserError(
            f"{episodes:,} episodes, the longest of {longest:,} decisions, are more than {CELLS:,} cells; "
            "leave the longest ones out (gipo-robot label --discard), or name fewer logs"
        )


def _kl(x: Tensor) -> float:
    x = x.clamp(max=5)
    return float((x.exp() - 1 - x).mean())


def _whole(store: Store, frames: TensorDictBase) -> Tensor:
    """The numbers of the episodes that the source has to the end, and of which every step is in `frames`."""
    episode = store.frames["episode"]
    names, steps = episode.unique_consecutive(return_counts=True)
    taken = frames["executed"].sum(1) if "executed" in frames.keys() else torch.ones(len(frames), dtype=torch.int64)
    found = torch.zeros(int(names.max()) + 1, dtype=torch.int64).index_add(0, frames["episode"].long(), taken)
    parts = torch.tensor(store.facts.parts, dtype=names.dtype)
    return names[(found[names.long()] == steps) & ~torch.isin(names, parts)]


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
