"""Groups of options of the data modules, each checked where it is made."""

from collections.abc import Mapping
from dataclasses import dataclass

from gipo.errors import GipoError


@dataclass
class CollectorOptions:
    """Where and how transitions are collected.

    Args:
        num_envs: simulators, per process.
        workers: 0 collects in this process; more start that many worker processes.
        asynchronous: workers go on collecting while the learner learns (fresher throughput, staler data).
        worker_timeout: seconds without data after which workers count as stuck and the run ends with an error.
    """

    num_envs: int = 20
    workers: int = 0
    asynchronous: bool = False
    worker_timeout: float = 30.0

    def __post_init__(self) -> None:
        refuse_not_positive("data.collector.", {"num_envs": self.num_envs, "worker_timeout": self.worker_timeout})
        refuse_negative("data.collector.", {"workers": self.workers})

    @property
    def simulators_together(self) -> int:
        """Simulators behind one chunk of transitions."""
        return self.num_envs * (1 if self.asynchronous else max(self.workers, 1))


@dataclass
class EvaluationOptions:
    """Evaluation episodes, on fixed goals of their own.

    Args:
        episodes: per validation.
        test_episodes: per `gipo test`, on other goals than those of validation.
        num_envs: simulators.
        seed: of goals and sampling noise; the same at every validation.
        deterministic: act by the most likely action instead of sampling.
    """

    episodes: int = 20
    test_episodes: int = 50
    num_envs: int = 10
    seed: int = 1_000_003
    deterministic: bool = False

    def __post_init__(self) -> None:
        sizes = ("episodes", "test_episodes", "num_envs")
        refuse_not_positive("data.evaluation.", {name: getattr(self, name) for name in sizes})
        refuse_negative("data.evaluation.", {"seed": self.seed})


def refuse_not_positive(prefix: str, values: Mapping[str, float]) -> None:
    """Raise a GipoError that names the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise GipoError(f"{prefix}{name} must be positive, got {value}")


def refuse_negative(prefix: str, values: Mapping[str, float]) -> None:
    """Raise a GipoError that names the first value below 0."""
    for name, value in values.items():
        if value < 0:
            raise GipoError(f"{prefix}{name} must not be negative, got {value}")
