"""The contract between a data module and what it can simulate."""

from abc import ABC, abstractmethod
from typing import Any

from torchrl.envs import EnvBase

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
        """As `make`, for evaluation: where a benchmark lays down the episodes, they are those, in its order."""
        return self.make(num_envs, seed)

    @abstractmethod
    def spaces(self, env: EnvBase) -> Spaces:
        """What a policy for an environment of `make` is built for."""

    @property
    @abstractmethod
    def interface(self) -> dict[str, Any] | None:
        """Names, units and rate of observations and actions, where they have true ones."""
