"""Spaces of any type: the environment gets what it can hold, the policy sees and does float32."""

import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from datamodules.collect.actor import Actor
from datamodules.envs.tasks import simulation
from gipo.networks import SeparateNetworks
from gipo.policies import GaussianPolicy, TokenPolicy
from tests import typed_env

torch.set_num_threads(1)
typed_env.register()


@pytest.mark.parametrize("name", typed_env.SPACES)
def test_specs_hold(name: str) -> None:
    env = simulation(name).make(num_envs=2, seed=0)
    check_env_specs(env)
    assert env.action_spec.dtype == torch.float32
    action, observation = typed_env.SPACES[name]
    seen = env.reset()["observation"]
    assert seen.dtype == torch.float32
    np.testing.assert_array_equal(seen.numpy(), np.tile(observation.high.astype(np.float32), (2, 1)))
    spaces = simulation(name).spaces(env)
    assert (spaces.action_low, spaces.action_high) == tuple(
        tuple(bound.astype(np.float32).tolist()) for bound in (action.low, action.high)
    )
    env.close()


@pytest.mark.parametrize("name", typed_env.SPACES)
@pytest.mark.parametrize("kind", [TokenPolicy, GaussianPolicy])
def test_what_was_sampled_is_kept_and_what_is_sent_is_the_nearest(name: str, kind: type) -> None:
    task = simulation(name)
    env = task.make(num_envs=1, seed=0)
    torch.manual_seed(0)
    policy = kind(task.spaces(env), network=lambda i, o: SeparateNetworks(i, o, hidden=(8,)))
    rollout = env.rollout(15, Actor(policy, torch.Generator().manual_seed(1)))[0]
    space = typed_env.SPACES[name][0]
    assert [sent.dtype for sent in typed_env.SENT] == [space.dtype] * 15
    sampled = rollout["action"].numpy()
    expected = np.clip(sampled.astype(float), space.low.astype(float), space.high.astype(float))
    whole = space.dtype.kind in "iu"
    expected = np.rint(expected) if whole else expected.astype(space.dtype)
    np.testing.assert_array_equal(np.stack(typed_env.SENT), expected.astype(space.dtype))
    # The density is that of what was sampled, which the environment's type does not change.
    params = policy.params(rollout["observation"])
    torch.testing.assert_close(policy.log_prob(params, rollout["latent"]), rollout["log_prob"])
    torch.testing.assert_close(policy.to_env(rollout["latent"]), rollout["action"])
    assert name != "Whole-v0" or (sampled != np.rint(sampled)).any()
    env.close()
