"""Evaluation episodes: fixed goals, own generators, nothing of the training run is touched."""

import torch
from tensordict import TensorDict
from torchrl.envs import EnvBase

from datamodules.actor import Actor
from datamodules.envs import seed_env
from gipo.policies import Policy


@torch.no_grad()
def evaluate(env: EnvBase, policy: Policy, episodes: int, seed: int, deterministic: bool = False) -> TensorDict:
    """Run `episodes` episodes with goals and noise that depend on `seed` alone.

    Returns:
        [episodes] with `return` f32 and `length` int64, in decisions; where the task knows success, `success` (at any
        step) and `success_last` (at the last step), bool; where the task has several parts, `task` int64.
    """
    seed_env(env, seed)
    actor = Actor(policy, torch.Generator().manual_seed(seed), deterministic=deterministic)
    width = env.batch_size[0]
    waves = [_wave(env, actor) for _ in range(-(-episodes // width))]
    return torch.cat(waves)[:episodes]


def _wave(env: EnvBase, actor: Actor) -> TensorDict:
    """One episode in every simulator."""
    state = env.reset()
    task = state.get("task", None)
    width = env.batch_size[0]
    alive = torch.ones(width, dtype=torch.bool)
    total, length = torch.zeros(width), torch.zeros(width, dtype=torch.int64)
    success, success_last = torch.zeros(2, width, dtype=torch.bool)
    while alive.any():
        stepped, state = env.step_and_maybe_reset(actor(state))
        following = stepped["next"]
        total += following["reward"].sum(-1) * alive  # of an action chunk, that of all its steps
        length += alive
        if "success" in following.keys():
            now = following["success"].squeeze(-1)
            success |= now & alive
            success_last = torch.where(alive, now, success_last)
        alive &= ~following["done"].squeeze(-1)
    result = {"return": total, "length": length}
    if "success" in env.observation_spec.keys():
        result |= {"success": success, "success_last": success_last}
    if task is not None:
        result["task"] = task.squeeze(-1)
    return TensorDict(result, batch_size=[width])
