"""State-only LIBERO: N simulators of a task, or of the tasks of a suite, without cameras."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Unbounded

from datamodules.envs.batched import BatchedEnv, Outcome
from datamodules.envs.libero import tasks as benchmark
from datamodules.envs.libero.simulator import ACTION_SIZE, LiberoSimulator, interface, units_of
from datamodules.envs.libero.tasks import LiberoTask
from datamodules.envs.simulation import SeededSimulation


def find(name: str) -> "LiberoStateTask | None":
    """The LIBERO suite or task of this name, seen by its state, where there is one.

    Raises:
        UserError: when the name begins like a suite and is wrong, or LIBERO is not installed.
    """
    return LiberoStateTask(name) if benchmark.known(name) else None


@dataclass(frozen=True)
class LiberoStateTask(SeededSimulation):
    """A LIBERO suite, or one of its tasks, without cameras.

    Args:
        name: `libero_goal`, `libero_goal/7`, `libero_goal/turn_on_the_stove` or `turn_on_the_stove`.
    """

    name: str

    @property
    def horizon(self) -> int:
        """Steps after which an episode of the suite is truncated."""
        return benchmark.find(self.name)[0].horizon

    @property
    def parts(self) -> tuple[str, ...]:
        """The tasks' own names, in the benchmark's order."""
        return tuple(task.name for task in benchmark.find(self.name))

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate; of a suite, whose tasks name their numbers differently, these are only counted."""
        return interface(benchmark.find(self.name))

    def environment(self, num_envs: int, evaluating: bool) -> "LiberoStateEnv":
        """Simulators that begin anywhere among the benchmark's initial states, or go through them in its order."""
        return LiberoStateEnv(benchmark.find(self.name), num_envs, evaluating)


class LiberoStateEnv(BatchedEnv):
    """The reward is 1 at success, which terminates the episode; the suite's horizon truncates it.

    Of several tasks the observations are padded with zeros to the largest, and a one-hot of the task follows; `task`
    [N, 1] int64 says which one a simulator is at.

    *In training* the tasks are dealt out to the simulators, and an episode is of one of the simulator's tasks, from one
    of the benchmark's initial states, both drawn by its own generator. *In evaluation* a full reset begins one episode
    in every simulator, and the next full reset goes on: all tasks from their first initial state, in the benchmark's
    order, then all from their second, and so on. A simulator whose episode has ended rests until the next full reset.

    Args:
        tasks: one, or those of a suite.
        num_envs: N.
        evaluating: whether episodes go through tasks and initial states in order.
    """

    def __init__(self, tasks: Sequence[LiberoTask], num_envs: int, evaluating: bool = False):
        size = len(units_of(tasks))
        super().__init__(num_envs, size, -np.ones(ACTION_SIZE), np.ones(ACTION_SIZE))
        if len(tasks) > 1:
            self.observation_spec["task"] = Unbounded((num_envs, 1), dtype=torch.int64)
        self.tasks, self.evaluating = tuple(tasks), evaluating
        self._held: dict[int, tuple[int, LiberoSimulator]] = {}  # place → its task and simulator
        self._free: defaultdict[int, list[LiberoSimulator]] = defaultdict(list)  # task → those that no place holds
        self._task = np.arange(num_envs) % len(tasks)  # that each place is at
        self._share = [np.arange(place % len(tasks), len(tasks), num_envs) for place in range(num_envs)]
        self._resting = np.zeros(num_envs, bool)
        self._set_seed(None)

    def simulator(self, index: int) -> LiberoSimulator:
        """The simulator in place `index` of the task that this place is at: its own, a free one, or else a new one."""
        at = int(self._task[index])
        if index not in self._held or self._held[index][0] != at:
            self._let_go(index)
            free = self._free[at]
            self._held[index] = at, free.pop(0) if free else LiberoSimulator(self.tasks[at])
        return self._held[index][1]

    def _let_go(self, index: int) -> None:
        if index in self._held:
            at, simulator = self._held.pop(index)
            self._free[at].append(simulator)

    def _let_go_all(self) -> None:
        for index in [*self._held]:
            self._let_go(index)

    def _set_seed(self, seed: int | None) -> None:
        sequences = np.random.SeedSequence(seed).spawn(self.batch_size[0])
        self._generators = [np.random.default_rng(sequence) for sequence in sequences]
        self._begun = 0  # episodes of evaluation

    def begin_with(self, numbers: Sequence[int], seed: int) -> None:
        """The next full reset begins these episodes of the evaluation with this seed."""
        sequences = [np.random.SeedSequence(seed, spawn_key=(number,)) for number in numbers]
        self._generators = [np.random.default_rng(sequence) for sequence in sequences]
        self._begun = numbers[0]

    def _reset(self, tensordict: TensorDictBase | None = None, **options: object) -> TensorDict:
        partial = tensordict is not None and "_reset" in tensordict.keys()
        if self.evaluating and partial:
            self._resting |= tensordict["_reset"].flatten().numpy()  # type: ignore[index]
            self._flags[:, self._resting] = False
            return self._tensordict(self._observe())
        self._resting[:] = False
        if self.evaluating:  # all places at once, so that what one goes on with is held by no other
            self._let_go_all()
        result = super()._reset(tensordict, **options)
        self._begun += self.batch_size[0]
        return result

    def _begin(self, index: int) -> np.ndarray:
        generator = self._generators[index]
        if self.evaluating:
            number, self._task[index] = divmod(self._begun + index, len(self.tasks))
        else:
            number, self._task[index] = int(generator.integers(2**32)), generator.choice(self._share[index])
        simulator = self.simulator(index)
        return self._whole(index, simulator.reset(number % len(simulator.states), generator))

    def _advance(self, index: int, action: np.ndarray) -> Outcome:
        if self._resting[index]:
            return Outcome(self._observation[index], 0.0, False, False, False)
        observation, success = self.simulator(index).step(action)
        truncated = not success and int(self._steps[index, 0]) + 1 >= self.tasks[self._task[index]].horizon
        return Outcome(self._whole(index, observation), float(success), success, truncated, success)

    def _whole(self, index: int, observation: np.ndarray) -> np.ndarray:
        """An observation in place `index`, padded to the largest task's and followed by the one-hot of the task."""
        whole = np.zeros(self._observation.shape[1], np.float32)
        whole[: len(observation)] = observation
        if len(self.tasks) > 1:
            whole[len(whole) - len(self.tasks) + self._task[index]] = 1
        return whole

    def _observe(self) -> dict[str, torch.Tensor]:
        found = super()._observe()
        return found | {"task": torch.tensor(self._task[:, None])} if len(self.tasks) > 1 else found

    def close(self, **kwargs: object) -> None:
        """Close the simulators of all tasks."""
        self._let_go_all()
        for simulator in chain(*self._free.values()):
            simulator.close()
        self._free.clear()
        super().close(**kwargs)
