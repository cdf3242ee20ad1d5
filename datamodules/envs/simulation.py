"""The contract between a data module and what it can simulate, and a task that ends its episodes sooner."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torchrl.envs import EnvBase, StepCounter, TransformedEnv

from gipo.policies import Spaces


class Simulation(ABC):
    """A task as a batch of simulators; small, and picklable, as workers make their own simulators from it."""

    name: str

    @property
    @abstractmethod
    def horizon(self) -> int | None:
        """Decisions after which an episode is truncated, where there is such a limit."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tasks it consists of, as `task` of its environments counts them."""
        return (self.name,)

    @abstractmethod
    def make(self, num_envs: int, seed: int) -> EnvBase:
        """`num_envs` seeded simulators behind one environment of batch size [num_envs], as the data contract has it."""

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        """As `make`, for evaluation: where a benchmark lays down the episodes, they are those, in its order.

        The environment may have a method `begin_with(numbers, seed)`: the next full reset begins in simulator i the
        episode numbers[i] of the evaluation with this seed, which depends on both numbers and on nothing else.
        """
        return self.make(num_envs, seed)

    @abstractmethod
    def spaces(self, env: EnvBase) -> Spaces:
        """What a policy for an environment of `make` is built for."""

    @property
    @abstractmethod
    def interface(self) -> dict[str, Any] | None:
        """Names, units and rate of observations and actions, where they have true ones; None is allowed.

        Without one an export needs `--rate`, and its names are `observation.0` …, of unspecified unit.
        """


@dataclass(frozen=True)
class Wrapped(Simulation):
    """A task with something else about its training episodes; what is not overridden is the task's own.

    Args:
        task: that it is otherwise.
    """

    task: Simulation

    @property
    def name(self) -> str:  # type: ignore[override]
        """The task's."""
        return self.task.name

    @property
    def horizon(self) -> int | None:
        """The task's."""
        return self.task.horizon

    @property
    def parts(self) -> tuple[str, ...]:
        """The task's."""
        return self.task.parts

    @property
    def interface(self) -> dict[str, Any] | None:
        """The task's."""
        return self.task.interface

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """The task's."""
        return self.task.make(num_envs, seed)

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        """The task's."""
        return self.task.make_evaluation(num_envs, seed)

    def spaces(self, env: EnvBase) -> Spaces:
        """The task's."""
        return self.task.spaces(env)


@dataclass(frozen=True)
class Shortened(Wrapped):
    """A task whose training episodes are truncated earlier; evaluation is the task's own.

    Args:
        task: that it is otherwise.
        steps: decisions after which an episode is truncated, unless the task does so before.
    """

    steps: int

    @property
    def horizon(self) -> int:
        """The earlier of both limits."""
        return self.steps if self.task.horizon is None else min(self.steps, self.task.horizon)

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """The task's simulators, with a counter."""
        return TransformedEnv(self.task.make(num_envs, seed), StepCounter(max_steps=self.steps))
