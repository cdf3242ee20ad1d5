"""Evaluation: whole episodes, the same goals and noise every time, nothing of the training run touched."""

import random

import numpy as np
import pytest
import torch

from datamodules.envs import Task, spaces_of
from datamodules.evaluation import evaluate
from gipo.policies import GaussianPolicy, Policy, TokenPolicy

TASK = Task("Tiny-v0")


def policy_for(task: Task, family: type[Policy] = TokenPolicy) -> Policy:
    env = task.make(1, 0)
    torch.manual_seed(0)
    return family(spaces_of(env))


@pytest.mark.parametrize("family", [TokenPolicy, GaussianPolicy])
def test_figures_depend_on_the_seed_alone(family: type[Policy]) -> None:
    policy, env = policy_for(TASK, family), TASK.make(3, 99)
    first, again, other = (evaluate(env, policy, 7, seed) for seed in (5, 5, 6))
    assert len(first) == 7
    assert torch.equal(first["return"], again["return"])
    assert not torch.equal(first["return"], other["return"])


def test_the_mode_needs_no_noise() -> None:
    policy = policy_for(TASK)
    one, two = (evaluate(TASK.make(2, 0), policy, 4, 5, deterministic=True) for _ in range(2))
    assert torch.equal(one["return"], two["return"])
    assert not torch.equal(one["return"], evaluate(TASK.make(2, 0), policy, 4, 5)["return"])


def test_episodes_end_by_termination_or_the_time_limit_and_are_counted_once() -> None:
    episodes = evaluate(TASK.make(4, 0), policy_for(TASK), 40, 1)
    assert episodes["length"].max() == 12
    assert episodes["length"].min() >= 1
    assert (episodes["return"] <= 0).all()
    assert "success" not in episodes.keys()


def test_global_generators_and_the_policy_are_left_alone() -> None:
    policy, env = policy_for(TASK), TASK.make(2, 0)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    evaluate(env, policy, 4, 3)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_metaworld_reports_success_at_any_and_at_the_last_step() -> None:
    task = Task("reach-v3")
    episodes = evaluate(task.make(2, 0), policy_for(task), 2, 3)
    assert episodes["length"].tolist() == [500, 500]
    assert (episodes["success"] | ~episodes["success_last"]).all()  # success at the end is success at some step
