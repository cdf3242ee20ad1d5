"""Evaluation episodes: each begins and acts by its number alone; nothing of the training run is touched."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from datamodules.collect.actor import Actor
from datamodules.collect.non_finite import refuse_non_finite_rows
from datamodules.envs.seeding import begin_episodes, episode_seed
from gipo.common.errors import UserError
from gipo.policies import Policy


@dataclass(frozen=True)
class Evaluation:
    """How evaluation episodes are run, however many.

    Args:
        seed: of all of them.
        deterministic: act by the mode instead of sampling.
        max_steps: decisions after which an episode is cut, where the task would let it go on.
        horizon: decisions after which the task says that every episode has ended; beyond, it is refused.
    """

    seed: int
    deterministic: bool = False
    max_steps: int | None = None
    horizon: int | None = None

    @torch.no_grad()
    def run(self, env: EnvBase, policy: Policy, waves: Sequence[range]) -> list[TensorDict]:
        """The episodes with the numbers of each wave, which are as many as `env` has simulators: [N] as `evaluate`."""
        return [_wave(env, policy, numbers, self) for numbers in waves]


class EvaluationWorkers(ABC):
    """Processes that can run evaluation episodes beside this one, in simulators like its own."""

    @abstractmethod
    def __len__(self) -> int:
        """How many processes."""

    @abstractmethod
    def begin_evaluation(self, policy: Policy, how: Evaluation, shares: Sequence[Sequence[range]]) -> None:
        """Have each process run the waves of its share."""

    @abstractmethod
    def finish_evaluation(self) -> list[list[TensorDict]]:
        """The episodes [N] of every wave of each share, once all have ended."""


def evaluate(
    env: EnvBase,
    policy: Policy,
    episodes: int,
    how: Evaluation,
    workers: EvaluationWorkers | None = None,
) -> TensorDict:
    """Run `episodes` episodes, of which each has a start and noise of its own, whatever the policy does in the others.

    Where the environment can begin a numbered episode in one of its simulators (`begin_with`, see
    `datamodules.envs.simulation`), an episode does not depend on the number of simulators either; elsewhere the
    simulators are seeded together, by the first number among them.

    Args:
        env: batch size [N].
        policy: acts.
        episodes: how many.
        how: they are run.
        workers: processes that take their share of the waves of N episodes.

    Returns:
        [episodes] with `return` f32 and `length` int64, in decisions; where the task knows success, `success` (at any
        step) and `success_last` (at the last step), bool; where the task has several parts, `task` int64.
    """
    width = env.batch_size[0]
    waves = [range(first, first + width) for first in range(0, episodes, width)]
    together = 1 + (0 if workers is None else len(workers))
    shares = [waves[index::together] for index in range(together)]
    if workers is not None:
        workers.begin_evaluation(policy, how, shares[1:])
    found = [how.run(env, policy, shares[0]), *([] if workers is None else workers.finish_evaluation())]
    return torch.cat([found[index % together][index // together] for index in range(len(waves))])[:episodes]


def _wave(env: EnvBase, policy: Policy, numbers: range, how: Evaluation) -> TensorDict:
    """Run one numbered episode in every simulator, until all have ended: [N], as `evaluate` returns them."""
    begin_episodes(env, numbers, how.seed)
    actor = _NumberedActor(policy, [episode_seed(how.seed, number) for number in numbers], how.deterministic)
    state = env.reset()
    task = state.get("task", None)
    width = len(numbers)
    alive = torch.ones(width, dtype=torch.bool)
    total, length = torch.zeros(width), torch.zeros(width, dtype=torch.int64)
    success, success_last = torch.zeros(2, width, dtype=torch.bool)
    while alive.any():
        stepped, state = env.step_and_maybe_reset(actor(state))
        following = stepped["next"]
        _refuse_non_finite(stepped, alive, numbers, length)
        # Of an action chunk, that of all its steps; of an episode after the numbered one nothing, were it not finite.
        total += torch.where(alive, following["reward"].sum(-1), 0.0)
        length += alive
        if "success" in following.keys():
            success |= following["success"].squeeze(-1) & alive
            now = following.get("success_last", following["success"]).squeeze(-1)
            success_last = torch.where(alive, now, success_last)
        alive &= ~following["done"].squeeze(-1)
        if how.max_steps is not None:
            alive &= length < how.max_steps
        _refuse_endless(alive, numbers, length, how.horizon)
    result = {"return": total, "length": length}
    if "success" in env.observation_spec.keys():
        result |= {"success": success, "success_last": success_last}
    if task is not None:
        result["task"] = task.squeeze(-1)
    return TensorDict(result, batch_size=[width])


def _refuse_endless(alive: Tensor, numbers: range, length: Tensor, horizon: int | None) -> None:
    """Refuse an episode that goes on after its task says it has ended: it might never.

    Raises:
        UserError: naming the episode.
    """
    late = alive & (length > horizon) if horizon is not None else torch.zeros_like(alive)
    if late.any():
        raise UserError(
            f"evaluation episode {numbers[int(late.nonzero()[0])]} goes on after the {horizon} decisions of its task's "
            f"`horizon`; let its environment truncate (torchrl.envs.StepCounter(max_steps={horizon})), or correct that"
        )


def _refuse_non_finite(stepped: TensorDictBase, alive: Tensor, numbers: range, length: Tensor) -> None:
    """Refuse a step that is none, by its evaluation episode."""
    seen = stepped.select("observation", ("next", "observation"), ("next", "reward"))
    refuse_non_finite_rows(seen, alive, lambda row: f"at step {int(length[row])} of evaluation episode {numbers[row]}")


class _NumberedActor(Actor):
    """Acts in N simulators, with noise that in each of them depends on its own seed alone."""

    def __init__(self, policy: Policy, seeds: Sequence[int], deterministic: bool):
        super().__init__(policy, deterministic=deterministic)
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def _noise(self, batch: tuple[int, ...]) -> Tensor:
        return torch.stack([self.policy.noise((), generator) for generator in self._generators])
