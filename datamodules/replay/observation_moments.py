"""The observation moments of a policy that has seen nothing yet: from data that was there before it, or by looking."""

from functools import partial

import torch
from torch import Tensor
from torchrl.envs import EnvBase

from datamodules.collect.actor import Actor, acting
from datamodules.collect.non_finite import refuse_non_finite_rows
from datamodules.envs.seeding import seed_env
from gipo.distributed import ranks
from gipo.policies import Policy


def learn_moments(policy: Policy, observation: Tensor, rows: Tensor | None = None) -> None:
    """Give a new policy's normaliser the moments of the observations; one that has moments keeps them.

    Args:
        policy: that is to learn from these observations.
        observation: [M, O], may be memory-mapped.
        rows: indices of those that count; all unless given.
    """
    if not policy.wants_moments:
        return
    size = policy.network.rows_at_once
    parts = observation.split(size) if rows is None else (observation[part] for part in rows.split(size))
    for part in parts:
        policy.learn_moments(part.to(policy.version.device))
        policy.take_moments()  # at once, part by part: nobody acts with this policy


@torch.no_grad()
def look_around(policy: Policy, env: EnvBase, frames: int, seed: int) -> None:
    """Give a new policy's normaliser the moments of what it sees when it acts; one that has moments keeps them.

    A policy must not act by other moments than it is learned with, so these come before its first transition.

    Args:
        policy: that is about to act, on any device; every learner (rank) has to call it.
        env: whose observations count; it is seeded here, and left in the middle of its episodes.
        frames: observations to see, rounded up to whole steps of `env`.
        seed: of goals and noise.

    Raises:
        UserError: on a non-finite observation, after which all moments, and whatever is acted by, would be none.
    """
    if not policy.wants_moments:
        return
    seed_env(env, seed)
    actor = Actor(acting(policy), torch.Generator().manual_seed(seed))
    state, ended = env.reset(), torch.zeros(env.batch_size, dtype=torch.bool)
    for step in range(-(-frames // env.batch_size[0])):
        refuse_non_finite_rows(state.select("observation"), torch.ones_like(ended), partial(_before_the_first, step))
        policy.learn_moments(state["observation"].to(policy.version.device), pool=ranks.joined)
        stepped, state = env.step_and_maybe_reset(actor(state))
        ended |= stepped["next", "done"].view_as(ended)
        if ended.all():  # a simulator may rest where its episode ended, until all begin anew
            state, ended = env.reset(), torch.zeros_like(ended)
    policy.take_moments()


def _before_the_first(step: int, simulator: int) -> str:
    return f"in simulator {simulator}, {step} steps after all began and before the first iteration"
