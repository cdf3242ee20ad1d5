"""Somebody's own simulators may write over what they answered: what was collected stays what it was."""

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase, StepCounter, TransformedEnv

from datamodules.collect.evaluation import Evaluation, evaluate
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.envs.simulation import SeededSimulation
from datamodules.online import OnlineDataModule
from datamodules.options import CollectorOptions, EvaluationOptions
from gipo.policies import Spaces, TokenPolicy

ENVS, STEPS, LIMIT = 3, 20, 7


class Frugal(EnvBase):
    """Points on a line that have one tensor for where they are, one for their reward, and scale actions in place."""

    def __init__(self, count: int):
        super().__init__(batch_size=[count])
        self.observation_spec = Composite(observation=Unbounded((count, 1)), shape=[count])
        self.action_spec = Bounded(-1.0, 1.0, (count, 1))
        self.reward_spec = Unbounded((count, 1))
        self.at, self.reward = torch.zeros(count, 1), torch.zeros(count, 1)

    def _reset(self, tensordict: TensorDict | None) -> TensorDict:
        begins = None if tensordict is None else tensordict.get("_reset", None)
        self.at[slice(None) if begins is None else begins] = 1.0
        self.reward[slice(None) if begins is None else begins] = 100.0  # of no episode
        return TensorDict(observation=self.at, batch_size=self.batch_size)

    def _step(self, tensordict: TensorDict) -> TensorDict:
        self.at += tensordict["action"].mul_(0.5)
        self.reward[:] = -self.at
        done = torch.zeros_like(self.at, dtype=torch.bool)
        return TensorDict(
            observation=self.at, reward=self.reward, terminated=done, done=done, batch_size=self.batch_size
        )

    def _set_seed(self, seed: int | None) -> None: ...


@dataclass(frozen=True)
class Line(SeededSimulation):
    name: str = "line"
    horizon = LIMIT
    interface = None

    def environment(self, num_envs: int, evaluating: bool) -> EnvBase:
        return TransformedEnv(Frugal(num_envs), StepCounter(LIMIT, step_count_key="step"))


def collected(**options: Any) -> TensorDict:
    policy = TokenPolicy(Spaces(1, (-1.0,), (1.0,)), bins=9, normalise=False)
    task = CollectorOptions(**options).simulated(Line())
    with closing(InProcessRollouts(Collection(task, ENVS, ENVS * STEPS, policy))) as rollouts:
        return rollouts.collect().reshape(ENVS, STEPS)


def test_what_was_observed_gained_and_done_stays_what_it_was() -> None:
    for options in ({}, {"max_steps": 5}, {"stagger": True}):
        frames = collected(**options)
        before, after = frames["observation"], frames["next", "observation"]
        begins = frames["step"] == 0
        assert (before[begins] == 1).all()
        assert torch.equal(before[:, 1:][~begins[:, 1:]], after[:, :-1][~begins[:, 1:]])
        torch.testing.assert_close(after, before + 0.5 * frames["action"])
        assert torch.equal(frames["next", "reward"], -after.squeeze(-1))
        assert frames["action"].abs().max() == 1


def test_what_a_reset_writes_over_is_no_return_of_the_episode_before() -> None:
    """Evaluation begins the next episode before it reads what the last step gave."""
    policy = TokenPolicy(Spaces(1, (-1.0,), (1.0,)), bins=9, normalise=False).eval()
    module = OnlineDataModule(Line(), evaluation=EvaluationOptions(num_envs=ENVS))
    with closing(module.evaluation_env) as env:
        found = evaluate(env, policy, ENVS, Evaluation(seed=0))
    assert (found["return"].abs() <= LIMIT * (1 + LIMIT / 2)).all()
