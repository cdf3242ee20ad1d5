"""Collection in this process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import Simulation, spaces_of
from datamodules.envs.tasks import simulation
from gipo.common.transition import REPLAY
from gipo.policies import GaussianPolicy, Policy, TokenPolicy
from tests.contract import assert_contract
from tests.runs import Process

TASK = simulation("reach-v3")
ENVS, FRAMES, WORKERS, SEED, FIRST_EPISODE = 2, 32, 2, 3, 50
Args = Callable[..., list[str]]
Start = Callable[[list[str]], Process]


@pytest.fixture(scope="module")
def policy() -> Policy:
    env = TASK.make(1, 0)
    torch.manual_seed(0)
    made = TokenPolicy(spaces_of(env), bins=8)
    env.close()
    return made


def in_process(policy: Policy, task: Simulation = TASK, seed: int = SEED, **options: Any) -> InProcessRollouts:
    return InProcessRollouts(Collection(task, ENVS, FRAMES, policy, seed=seed, **options))


def assert_episodes_are_whole(frames: TensorDict) -> None:
    """Within each episode steps count up by one, and each observation is what the step before led to."""
    for episode in frames["episode"].unique():
        mine = frames[frames["episode"] == episode]
        assert (mine["step"].diff() == 1).all()
        assert torch.equal(mine["observation"][1:], mine["next", "observation"][:-1])


@pytest.mark.parametrize("store_params", [False, True])
@pytest.mark.parametrize("family", [TokenPolicy, GaussianPolicy])
def test_frames_follow_the_data_contract(family: type[Policy], store_params: bool, policy: Policy) -> None:
    rollouts = in_process(family(policy.spaces), store_params=store_params)
    frames = rollouts.collect()
    rollouts.close()
    parameters = 33 if family is TokenPolicy else 2
    sizes = {"O": policy.spaces.observation_size, "D": policy.action_size, "P": parameters}
    # What the replay adds is not there yet.
    assert_contract(frames, REPLAY, sizes, without=("advantage", "value_target", "source"))
    assert frames["latent"].is_floating_point() == (family is GaussianPolicy)
    assert ("behaviour_params" in frames.keys()) == store_params
    assert len(frames) == FRAMES
    assert frames["valid"].all()


def test_log_probs_are_of_the_latent_under_the_policy_that_acted(policy: Policy) -> None:
    rollouts = in_process(policy)
    frames = rollouts.collect()
    rollouts.close()
    expected = policy.log_prob(policy.params(frames["observation"]), frames["latent"])
    assert torch.allclose(frames["log_prob"], expected, atol=1e-6)
    assert torch.equal(frames["action"], policy.to_env(frames["latent"]))


def test_a_task_without_success_says_nothing_of_it() -> None:
    task = simulation("Tiny-v0")
    env = task.make(1, 0)
    rollouts = in_process(TokenPolicy(spaces_of(env), bins=4), task)
    assert ("next", "success") not in rollouts.collect().keys(True)
    rollouts.close()


def test_episode_numbers_go_on_across_segments_ends_and_restarts() -> None:
    task = simulation("Tiny-v0")
    env = task.make(1, 0)
    rollouts = in_process(TokenPolicy(spaces_of(env), bins=4), task, first_episode=100)
    seen: set[int] = set()
    for restart in range(3):
        segments = [rollouts.collect() for _ in range(3)]
        frames = torch.cat(segments)
        order = frames["episode"].argsort(stable=True)
        assert_episodes_are_whole(frames[order])
        numbers = set(frames["episode"].tolist())
        assert min(numbers) >= 100
        assert not seen & numbers
        assert len(numbers) > ENVS  # some ended, so that new ones began
        seen |= numbers
        assert rollouts.next_episode == max(seen) + 1
        rollouts.restart(seed=restart)
    rollouts.close()


def test_a_restart_depends_on_its_seed_alone(policy: Policy) -> None:
    def after(segments: int, seed: int) -> TensorDict:
        rollouts = in_process(policy, seed=segments)
        for _ in range(segments):
            rollouts.collect()
        rollouts.restart(seed)
        frames = rollouts.collect()
        rollouts.close()
        return frames

    one, two, other = after(1, 5), after(3, 5), after(1, 6)
    for key in ("observation", "latent", "log_prob"):
        assert torch.equal(one[key], two[key])
        assert not torch.equal(one[key], other[key])
