"""Native simulators: MetaWorld's tasks, and `envpool:ID` for whatever else EnvPool has with flat boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import torch

from datamodules.envs.batched import FlatEnv
from datamodules.envs.metaworld import MetaWorldTask
from datamodules.envs.seeding import episode_seed
from datamodules.envs.simulation import SeededSimulation, Simulation
from gipo.common.errors import UserError, nearest
from gipo.common.simulators.native import Pool, envpool, metaworld_id, success_key

PREFIX = "envpool:"  # of a task's name, before an id of EnvPool


def find(name: str) -> "NativeTask | None":
    """The task of this name, where it begins with `envpool:`.

    Raises:
        UserError: when EnvPool is not installed, has no task of this id, or one whose spaces are no flat boxes.
    """
    if not name.startswith(PREFIX):
        return None
    task = NativeTask(name)
    spec_of(task.id)
    return task


@dataclass(frozen=True)
class NativeTask(SeededSimulation):
    """A task of EnvPool with flat observations and actions.

    Args:
        name: `envpool:` and its id, such as `envpool:HalfCheetah-v5`.
        threads: that step its simulators; evaluation has one.
    """

    name: str
    threads: int = 1
    simulator = "envpool"

    @property
    def id(self) -> str:
        """The name without its prefix."""
        return self.name.removeprefix(PREFIX)

    @property
    def horizon(self) -> int:
        """Steps after which EnvPool truncates an episode."""
        return int(spec_of(self.id).config.max_episode_steps)

    @property
    def interface(self) -> None:
        """None: EnvPool says neither names nor units."""

    def environment(self, num_envs: int, evaluating: bool) -> "NativeEnv":
        """Simulators of one pool."""
        return NativeEnv(self.id, num_envs, 1 if evaluating else self.threads)


@dataclass(frozen=True)
class NativeMetaWorldTask(MetaWorldTask):
    """A MetaWorld task in C++.

    Args:
        name: one of the fifty, such as `reach-v3`.
        threads: that step its simulators; evaluation has one.
    """

    threads: int = 1
    simulator = "envpool"

    def environment(self, num_envs: int, evaluating: bool) -> "NativeEnv":
        """Simulators of one pool."""
        return NativeEnv(metaworld_id(self.name), num_envs, 1 if evaluating else self.threads)


def on_threads(task: Simulation, threads: int) -> Simulation:
    """A native task whose simulators are stepped by so many threads.

    Raises:
        UserError: when it is not native.
    """
    if not isinstance(task, NativeTask | NativeMetaWorldTask):
        raise UserError(f"data.collector.threads={threads} needs native simulators, and {task.name} is in Python")
    return replace(task, threads=threads)


class NativeEnv(FlatEnv):
    """N simulators of one pool, which is made anew whenever they are seeded: EnvPool takes seeds only then.

    Args:
        task: an id of EnvPool.
        num_envs: N.
        threads: that step them.
    """

    def __init__(self, task: str, num_envs: int, threads: int = 1):
        spec = spec_of(task)
        low, high = (np.asarray(bound, np.float32) for bound in (spec.action_space.low, spec.action_space.high))
        super().__init__(num_envs, spec.observation_space.shape[0], low, high)
        self.task, self.threads = task, threads
        self._succeeds = success_key(spec) is not None
        if not self._succeeds:
            del self.observation_spec["success"]
        self._seeds: Sequence[int] = range(num_envs)
        self._pool: Pool | None = None

    def _set_seed(self, seed: int | None) -> None:
        sequences = np.random.SeedSequence(seed).spawn(self.batch_size[0])
        self._seed_with([int(sequence.generate_state(1)[0]) for sequence in sequences])

    def begin_with(self, numbers: Sequence[int], seed: int) -> None:
        """The next full reset begins these episodes of the evaluation with this seed, the first N as `set_seed`."""
        self._seed_with([episode_seed(seed, number) for number in numbers])

    def _seed_with(self, seeds: Sequence[int]) -> None:
        self._release()
        self._seeds = seeds

    def _begin_episodes(self, chosen: np.ndarray | None) -> None:
        if self._pool is None:
            self._pool, chosen = Pool(self.task, self._seeds, self.threads), None
        self._observation[slice(None) if chosen is None else chosen] = self._pool.reset(chosen)

    def _advance_all(self, actions: np.ndarray) -> None:
        assert self._pool is not None, "an environment is reset before it is stepped"
        answer = self._pool.step(actions)
        self._observation[:] = answer.observation
        self._reward[:, 0] = answer.reward
        self._flags[0, :, 0], self._flags[1, :, 0] = answer.terminated, answer.truncated
        if answer.success is not None:
            self._flags[2, :, 0] = answer.success

    def _observe(self) -> dict[str, torch.Tensor]:
        found = super()._observe()
        if not self._succeeds:
            del found["success"]
        return found

    def _release(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def close(self, **kwargs: Any) -> None:
        """End the threads and free the simulators."""
        self._release()
        super().close(**kwargs)


@cache
def spec_of(task: str) -> Any:
    """EnvPool's spec of the task with this id.

    Raises:
        UserError: when EnvPool is not installed, has no such task, cannot make it, or its spaces are no flat boxes.
    """
    library = envpool()
    if task not in library.list_all_envs():
        raise UserError(f"envpool has no task {task!r}. Nearest: {nearest(task, library.list_all_envs())}")
    try:
        spec = library.make_spec(task)
    except Exception as error:  # whatever a family of tasks raises, missing libraries above all
        raise UserError(f"envpool cannot make task {task!r}: {error}") from error
    for name, space in (("observation", spec.observation_space), ("action", spec.action_space)):
        if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
            raise UserError(f"task {PREFIX}{task} has the {name} space {space}; gipo needs a flat gymnasium.spaces.Box")
    return spec
