"""Where the episodes of an evaluation begin: by number where an environment can, together where it cannot."""

from typing import Any

import pytest
from torchrl.envs import EnvBase, StepCounter, TransformedEnv
from torchrl.envs.custom import ToyVLAEnv

from datamodules.envs.action_chunks import ChunkEnv
from datamodules.envs.seeding import begin_episodes, episode_seed
from datamodules.envs.tasks import simulation


class Claiming:
    """Says that it has whatever it is asked for, as environments over processes do, which then end at the call."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: pytest.fail(f"{name} was called, which no process knows")

    def set_seed(self, seed: int) -> None:
        self.seeds.append(seed)


class Numbered(ToyVLAEnv):
    """Keeps which episodes it is to begin."""

    numbers: Any = None

    def begin_with(self, *numbers: Any) -> None:
        self.numbers = numbers


def test_simulators_that_know_no_numbers_are_seeded_by_the_first() -> None:
    env = Claiming()
    begin_episodes(env, range(4, 6), 7)  # type: ignore[arg-type]
    assert env.seeds == [episode_seed(7, 4)]


def test_simulators_behind_chunks_of_actions_are_told_the_numbers() -> None:
    inner = Numbered(2, 4, batch_size=[2], success_steps=2)
    begin_episodes(ChunkEnv(inner, 2), range(4, 6), 7)
    assert inner.numbers == (range(4, 6), 7)


def test_simulators_behind_a_transform_are_told_the_numbers() -> None:
    def start(env: EnvBase) -> Any:
        begin_episodes(env, range(4, 6), 7)
        return env.reset()["observation"].tolist()

    task = simulation("Tiny-v0")
    assert start(TransformedEnv(task.make(2, 0), StepCounter(5, step_count_key="count"))) == start(task.make(2, 1))
