"""What a kind of simulator is asked: which names it knows, and what it makes of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from torchrl.envs import EnvBase


class Family(ABC):
    """A kind of simulator. Everything but `knows` and `names` is asked only for names it knows."""

    @abstractmethod
    def knows(self, name: str) -> bool:
        """Whether `name` is one of its tasks.

        Raises:
            UserError: when the name is plainly meant for it, and wrong.
        """

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Names it knows, to offer the nearest of."""

    @abstractmethod
    def horizon(self, name: str) -> int | None:
        """Steps after which an episode is truncated, where there is such a limit."""

    @abstractmethod
    def make(self, name: str, num_envs: int) -> EnvBase:
        """`num_envs` simulators behind one environment, batch size [num_envs], keys as `envs.tasks` says."""

    def make_evaluation(self, name: str, num_envs: int) -> EnvBase:
        """As `make`, for evaluation."""
        return self.make(name, num_envs)

    def parts(self, name: str) -> tuple[str, ...]:
        """Names of the tasks that the task consists of."""
        return (name,)

    def interface(self, name: str) -> dict[str, Any] | None:
        """Names, units and rate of observations and actions, where they have true ones."""
        return None
