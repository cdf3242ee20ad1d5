"""Advantages and value targets of transitions as they lie in a buffer, by the current critic."""

import torch
from tensordict import TensorDictBase
from torch import Tensor

from datamodules.advantages import Estimate, Estimator, Trajectories
from gipo.policies import Policy

CHUNK = 65_536  # transitions that go through the networks at once


@torch.no_grad()
def value_frames(
    frames: TensorDictBase,
    policy: Policy,
    estimator: Estimator,
    reward_scale: float,
    chronological: Tensor | None = None,
) -> tuple[Tensor, Estimate]:
    """Value frames [M], keys as in the data contract.

    Args:
        frames: transitions of many episodes, in any order.
        policy: its critic values them; V-trace also asks its log-probs.
        estimator: GAE or V-trace.
        reward_scale: factor on rewards.
        chronological: [M] indices of the frames, oldest first; as they lie unless given.

    Returns:
        [M] indices in episode and time order, and the estimates in that order.
    """
    episode = frames["episode"]
    if chronological is None:
        chronological = torch.arange(len(frames), device=episode.device)
    # A stable sort by episode lays every episode out in time order, however its frames arrived.
    order = chronological[episode[chronological].argsort(stable=True)]
    episode, step = episode[order], frames["step"][order]
    follows = (episode[1:] == episode[:-1]) & (step[1:] == step[:-1] + 1)
    done = frames["next", "done"][order]
    linked = torch.cat((follows, follows.new_zeros(1))) & ~done
    value, log_ratio = _networks(frames, policy, order, estimator.needs_log_ratio)
    # V(s_{t+1}) is the next frame's value; only where an episode is cut does the critic see s_{t+1} itself.
    next_value = torch.cat((value[1:], value[:1]))
    cut = (~linked).nonzero().squeeze(-1)
    device = policy.version.device  # the learner's, which need not be the buffer's
    for rows in cut.split(CHUNK):
        next_value[rows] = policy.value(frames["next", "observation"][order[rows]].to(device)).to(value.device)
    estimate = estimator(
        Trajectories(
            reward=frames["next", "reward"][order] * reward_scale,
            value=value,
            next_value=next_value,
            terminated=frames["next", "terminated"][order],
            linked=linked,
            log_ratio=log_ratio,
        )
    )
    return order, estimate


@torch.no_grad()
def log_ratios(policy: Policy, frames: TensorDictBase) -> Tensor:
    """x = log π(a|s) − log μ(a|s) of frames [M]: [M, D] nats, on the frames' device."""
    device = policy.version.device
    found = []
    for rows in torch.arange(len(frames)).split(CHUNK):
        log_pi = policy.log_prob(
            policy.params(frames["observation"][rows].to(device)), frames["latent"][rows].to(device)
        )
        found.append(log_pi.to(frames["log_prob"].device) - frames["log_prob"][rows])
    return torch.cat(found)


def _networks(frames: TensorDictBase, policy: Policy, order: Tensor, ratios: bool) -> tuple[Tensor, Tensor]:
    """Values [M] in `order`, and log-ratios of the whole action [M] where they are asked for, else zeros.

    Frames that the policy did not choose have ratio 1: nothing is known of how they were chosen.
    """
    device = policy.version.device
    values, log_ratios = [], []
    for rows in order.split(CHUNK):
        features = policy.features(frames["observation"][rows].to(device))
        values.append(policy.value_of(features).to(order.device))
        if ratios:
            log_pi = policy.log_prob(policy.params_of(features), frames["latent"][rows].to(device))
            x = (log_pi.to(order.device) - frames["log_prob"][rows]).sum(-1)
            log_ratios.append(torch.where(frames["valid"][rows], x, 0.0))
    value = torch.cat(values)
    return value, torch.cat(log_ratios) if ratios else torch.zeros_like(value)
