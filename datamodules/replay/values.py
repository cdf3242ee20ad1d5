"""Advantages and value targets of transitions as they lie in a buffer, by the current critic."""

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from datamodules.advantages import Estimate, Estimator, Trajectories, estimated
from gipo.policies import Policy

Seen = Callable[[Any], Any]  # makes of observations as they are kept what a policy takes


def as_kept(observation: Any) -> Any:
    """Observations that are kept as a policy takes them."""
    return observation


@torch.no_grad()
def value_frames(
    frames: TensorDictBase,
    policy: Policy,
    estimator: Estimator,
    reward_scale: float,
    chronological: Tensor | None = None,
    seen: Seen = as_kept,
) -> tuple[Tensor, Estimate]:
    """Value frames [M], keys as in the data contract.

    With action chunks the steps of all chunks lie one after another, without those that were not executed: a step's
    successor is the next one of its chunk, and after the last the first of the next decision.

    Args:
        frames: transitions of many episodes, in any order.
        policy: its critic values them; V-trace also asks its log-probs.
        estimator: GAE or V-trace.
        reward_scale: factor on rewards.
        chronological: [M] indices of the frames, oldest first; as they lie unless given.
        seen: makes of observations what the policy takes.

    Returns:
        [M] indices in episode and time order, and the estimates in it: [M], or [M, H] with 0 for what was not executed.
    """
    order, linked = _episodes(frames, chronological)
    value, log_ratio = _networks(frames, policy, order, estimator.needs_log_ratio, seen)
    terminated, reward = frames["next", "terminated"][order], frames["next", "reward"][order] * reward_scale
    steps = _Steps(frames["executed"][order]) if "executed" in frames.keys() else None
    source = order  # the frame that each value is of
    if steps is not None:
        value, log_ratio, reward = steps.flat(value), steps.flat(log_ratio), steps.flat(reward)
        linked, terminated = ~steps.last | steps.of_decision(linked), steps.last & steps.of_decision(terminated)
        source = steps.of_decision(order)
    # V(s_{t+1}) is the next frame's value; only where an episode is cut does the critic see s_{t+1} itself.
    next_value = torch.where(terminated, 0.0, value.roll(-1))  # behind an end there need not even be an image
    for rows in filter(len, (~linked & ~terminated).nonzero().squeeze(-1).split(policy.network.rows_at_once)):
        found = _values(policy, frames["next"], source[rows], seen).to(value.device)
        next_value[rows] = found if steps is None else found[:, 0]  # a new decision's chunk begins with its first step
    estimate = estimated(estimator, Trajectories(reward, value, next_value, terminated, linked, log_ratio))
    return order, estimate if steps is None else Estimate(*(steps.chunked(found) for found in estimate))


def _episodes(frames: TensorDictBase, chronological: Tensor | None) -> tuple[Tensor, Tensor]:
    """Indices [M] in episode and time order, and in that order whether the next frame continues the episode."""
    episode = frames["episode"]
    if chronological is None:
        chronological = torch.arange(len(frames), device=episode.device)
    # A stable sort by episode lays every episode out in time order, however its frames arrived.
    order = chronological[episode[chronological].argsort(stable=True)]
    episode, step = episode[order], frames["step"][order]
    follows = (episode[1:] == episode[:-1]) & (step[1:] == step[:-1] + 1)
    return order, torch.cat((follows, follows.new_zeros(1))) & ~frames["next", "done"][order]


class _Steps:
    """The executed steps of action chunks on one axis [S].

    Args:
        executed: [M, H] bool, of decisions in episode and time order; a chunk is executed from its first step on.
    """

    def __init__(self, executed: Tensor):
        self._executed = executed
        self.decision, step = executed.nonzero().unbind(-1)
        self.last = step == executed.sum(-1)[self.decision] - 1

    def flat(self, values: Tensor) -> Tensor:
        """Values [M, H] of all steps of chunks, as those [S] of the executed ones."""
        return values[self._executed]

    def of_decision(self, values: Tensor) -> Tensor:
        """Values [M] of decisions, as those [S] of each step's decision."""
        return values[self.decision]

    def chunked(self, values: Tensor) -> Tensor:
        """Values [S] of executed steps, as those [M, H] of all steps of chunks; 0 elsewhere."""
        found = values.new_zeros(self._executed.shape)
        found[self._executed] = values
        return found


@torch.no_grad()
def log_ratios(policy: Policy, frames: TensorDictBase, seen: Seen = as_kept) -> Tensor:
    """x = log π(a|s) − log μ(a|s) of frames [M]: [M, D] or [M, H, D] nats, on the frames' device.

    `seen` makes of observations what the policy takes.
    """
    found = []
    for rows in torch.arange(len(frames)).split(policy.network.rows_at_once):
        found.append(_log_ratio(policy, _features(policy, frames, rows, seen), frames, rows))
    return torch.cat(found)


def _networks(frames: TensorDictBase, policy: Policy, order: Tensor, ratios: bool, seen: Seen) -> tuple[Tensor, Tensor]:
    """Values in `order`, and log-ratios of the whole action where they are asked for, else zeros: [M] or [M, H].

    Frames that the policy did not choose have ratio 1: nothing is known of how they were chosen.
    """
    values, log_ratios = [], []
    for rows in order.split(policy.network.rows_at_once):
        features = None if policy.privileged_size and not ratios else _features(policy, frames, rows, seen)
        values.append(_values(policy, frames, rows, seen, features).to(order.device))
        if features is not None and ratios:
            x = _log_ratio(policy, features, frames, rows).sum(-1)
            log_ratios.append(torch.where(frames["valid"][rows], x, 0.0))
    value = torch.cat(values)
    return value, torch.cat(log_ratios) if ratios else torch.zeros_like(value)


def _features(policy: Policy, frames: TensorDictBase, rows: Tensor, seen: Seen) -> Tensor:
    return policy.features(seen(frames["observation"][rows]).to(policy.version.device))


def _values(policy: Policy, frames: TensorDictBase, rows: Tensor, seen: Seen, features: Tensor | None = None) -> Tensor:
    """Values of what was seen in frames [B], of which there may be `features`: [B], or [B, H].

    A critic that sees what is privileged needs nothing that `seen` would have to make, such as images.
    """
    device, observation = policy.version.device, frames["observation"][rows]
    if policy.privileged_size:
        return policy.value(observation.to(device), frames["privileged"][rows].to(device))
    return policy.value(seen(observation).to(device)) if features is None else policy.value_of(features)


def _log_ratio(policy: Policy, features: Tensor, frames: TensorDictBase, rows: Tensor) -> Tensor:
    log_mu = frames["log_prob"][rows]
    log_pi = policy.log_prob(policy.params_of(features), frames["latent"][rows].to(policy.version.device))
    return log_pi.to(log_mu.device) - log_mu
