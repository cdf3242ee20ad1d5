"""Evaluation: whole episodes, the same goals and noise every time, nothing of the training run touched."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from datamodules.collect.evaluation import Evaluation, evaluate
from datamodules.envs.simulation import Simulation, spaces_of
from datamodules.envs.tasks import simulation
from datamodules.vla import ToyVLA
from gipo.common.errors import UserError
from gipo.policies import GaussianPolicy, Policy, TokenPolicy
from gipo.vla.policies import VLATokenPolicy

TASK = simulation("Tiny-v0")


def policy_for(task: Simulation, family: type[Policy] = TokenPolicy) -> Policy:
    env = task.make(1, 0)
    torch.manual_seed(0)
    return family(spaces_of(env))


@pytest.mark.parametrize("family", [TokenPolicy, GaussianPolicy])
def test_figures_depend_on_the_seed_alone(family: type[Policy]) -> None:
    policy, env = policy_for(TASK, family), TASK.make(3, 99)
    first, again, other = (evaluate(env, policy, 7, Evaluation(seed)) for seed in (5, 5, 6))
    assert len(first) == 7
    assert torch.equal(first["return"], again["return"])
    assert not torch.equal(first["return"], other["return"])


@pytest.mark.parametrize("key", ["reward", "observation"])
def test_a_simulator_that_blows_up_gives_no_figures(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = TASK.make(3, 0)
    step, steps = type(env).step_and_maybe_reset, []

    def blown_up(self: EnvBase, state: TensorDictBase) -> tuple[TensorDictBase, TensorDictBase]:
        stepped, following = step(self, state)
        if len(steps) == 1:
            stepped["next", key][1] = float("nan")
        steps.append(1)
        return stepped, following

    monkeypatch.setattr(type(env), "step_and_maybe_reset", blown_up)
    with pytest.raises(UserError, match=rf"non-finite next/{key} at step 1 of evaluation episode 1: \[nan"):
        evaluate(env, policy_for(TASK), 3, Evaluation(seed=5))


def test_what_comes_after_an_episode_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulators of those that have ended go on while others run: what they break then is nobody's."""
    expected = evaluate(TASK.make(40, 0), policy_for(TASK), 40, Evaluation(seed=1))
    env = TASK.make(40, 0)
    step, ended = type(env).step_and_maybe_reset, torch.zeros(40, dtype=torch.bool)

    def broken_later(self: EnvBase, state: TensorDictBase) -> tuple[TensorDictBase, TensorDictBase]:
        stepped, following = step(self, state)
        stepped["next", "reward"][ended] = float("nan")
        ended.logical_or_(stepped["next", "done"].squeeze(-1))
        return stepped, following

    monkeypatch.setattr(type(env), "step_and_maybe_reset", broken_later)
    found = evaluate(env, policy_for(TASK), 40, Evaluation(seed=1))
    assert found["length"].min() < found["length"].max()
    assert torch.equal(found["return"], expected["return"])


def test_a_simulator_that_begins_with_what_is_no_number_gives_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    task = ToyVLA()
    env = task.make(2, 0)
    reset = type(env).reset

    def blown_up(self: EnvBase, *args: Any, **options: Any) -> TensorDictBase:
        state = reset(self, *args, **options)
        state["observation", "state"][1] = float("nan")
        return state

    policy = VLATokenPolicy(task.spaces(env), bins=8)
    monkeypatch.setattr(type(env), "reset", blown_up)
    with pytest.raises(UserError, match=r"non-finite observation/state at step 0 of evaluation episode 1: \[nan"):
        evaluate(env, policy, 2, Evaluation(seed=5))


def test_the_mode_needs_no_noise() -> None:
    policy = policy_for(TASK)
    one, two = (evaluate(TASK.make(2, 0), policy, 4, Evaluation(seed=5, deterministic=True)) for _ in range(2))
    assert torch.equal(one["return"], two["return"])
    assert not torch.equal(one["return"], evaluate(TASK.make(2, 0), policy, 4, Evaluation(seed=5))["return"])


def test_episodes_end_by_termination_or_the_time_limit_and_are_counted_once() -> None:
    episodes = evaluate(TASK.make(4, 0), policy_for(TASK), 40, Evaluation(seed=1))
    assert episodes["length"].max() == 12
    assert episodes["length"].min() >= 1
    assert (episodes["return"] <= 0).all()
    assert "success" not in episodes.keys()


def starts(env: EnvBase, policy: Policy, episodes: int) -> list[tuple[float, ...]]:
    """Where the episodes of an evaluation began, by their number."""
    width, found = env.batch_size[0], []
    reset = type(env).reset

    def noting(self: EnvBase, *args: Any, **options: Any) -> TensorDictBase:
        state = reset(self, *args, **options)
        if not args:  # of all simulators
            found.extend(tuple(row) for row in state["observation"][:, :2].tolist())
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(env), "reset", noting)
        evaluate(env, policy, episodes, Evaluation(seed=5))
    assert len(found) == -(-episodes // width) * width
    return found[:episodes]


def test_an_episode_begins_by_its_number_whatever_a_policy_did_in_those_before() -> None:
    task = simulation("Brief-v0")
    one, other = policy_for(task), policy_for(task)
    for parameter in other.actor_parameters():
        torch.nn.init.normal_(parameter)
    env = task.make(3, 0)
    lengths = [evaluate(env, policy, 12, Evaluation(seed=5))["length"].tolist() for policy in (one, other)]
    assert lengths[0] != lengths[1]  # so that simulators are reset at different times
    found = starts(env, one, 12)
    assert found == starts(env, other, 12)
    assert len(set(found)) == 12
    assert found == starts(task.make(5, 99), one, 12)  # nor does the number of simulators matter


@pytest.mark.parametrize("family", [TokenPolicy, GaussianPolicy])
def test_figures_do_not_depend_on_the_number_of_simulators(family: type[Policy]) -> None:
    policy = policy_for(TASK, family)
    three, seven = (evaluate(TASK.make(width, 0), policy, 7, Evaluation(seed=5)) for width in (3, 7))
    assert torch.equal(three["length"], seven["length"])
    assert torch.allclose(three["return"], seven["return"])


def test_simulators_that_are_seeded_together_begin_alike_for_every_policy() -> None:
    task = ToyVLA(max_steps=8)
    env = task.make_evaluation(2, 0)
    policies = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        policies.append(VLATokenPolicy(task.spaces(env), bins=8))
    one, other = (starts_of_states(env, policy, 6) for policy in policies)
    assert torch.equal(one, other)
    assert len(one.unique(dim=0)) == 6


def starts_of_states(env: EnvBase, policy: Policy, episodes: int) -> torch.Tensor:
    found, reset = [], type(env).reset

    def noting(self: EnvBase, *args: Any, **options: Any) -> TensorDictBase:
        state = reset(self, *args, **options)
        if not args:
            found.append(state["observation", "state"].clone())
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(env), "reset", noting)
        evaluate(env, policy, episodes, Evaluation(seed=5))
    return torch.cat(found)


def test_the_first_goals_of_metaworld_are_those_of_its_seed() -> None:
    env, seeded = simulation("reach-v3").make(3, 0), simulation("reach-v3").make(3, 7)
    env.begin_with(range(3), 7)
    goals = env.reset()["observation"][:, -3:]
    assert torch.equal(goals, seeded.reset()["observation"][:, -3:])
    alone = simulation("reach-v3").make(1, 0)
    alone.begin_with([2], 7)
    assert torch.equal(alone.reset()["observation"][0, -3:], goals[2])


def test_an_episode_without_end_is_cut_where_it_is_asked() -> None:
    task = simulation("Endless-v0")
    episodes = evaluate(task.make(2, 0), policy_for(task), 5, Evaluation(seed=1, max_steps=9))
    assert episodes["length"].tolist() == [9] * 5


def test_an_episode_that_goes_on_after_its_horizon_is_refused() -> None:
    task = simulation("Endless-v0")
    with pytest.raises(UserError, match=r"evaluation episode 0 goes on after the 9 decisions of its task's `horizon`"):
        evaluate(task.make(2, 0), policy_for(task), 5, Evaluation(seed=1, horizon=9))
    episodes = evaluate(task.make(2, 0), policy_for(task), 2, Evaluation(seed=1, max_steps=9, horizon=9))
    assert (episodes["length"] == 9).all()


def test_global_generators_and_the_policy_are_left_alone() -> None:
    policy, env = policy_for(TASK), TASK.make(2, 0)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    evaluate(env, policy, 4, Evaluation(seed=3))
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_metaworld_reports_success_at_any_and_at_the_last_step() -> None:
    task = simulation("reach-v3")
    episodes = evaluate(task.make(2, 0), policy_for(task), 2, Evaluation(seed=3))
    assert episodes["length"].tolist() == [500, 500]
    assert (episodes["success"] | ~episodes["success_last"]).all()  # success at the end is success at some step
