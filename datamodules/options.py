"""Groups of options of the data modules, each checked where it is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torchrl.envs import EnvBase

from datamodules.collect.stagger import Staggered
from datamodules.envs.copied import copied
from datamodules.envs.envpool import on_threads
from datamodules.envs.simulation import Shortened, Simulation
from gipo.common.errors import UserError
from gipo.common.interpreter import cores


@dataclass
class RayOptions:
    """Actors on a Ray cluster.

    Args:
        address: `host:port` of the cluster's head, `auto` for the cluster this machine belongs to; null starts one here
            that ends with the run.
        cpus: cores that an actor asks for.
        max_staleness: with `asynchronous`, how many iterations the weights behind a segment may lag when it is used; 0
            is synchronous collection.
        replacements: actors that may be lost and replaced in a run; the next one lost ends it with an error.
        start_timeout: seconds that an actor may take to start.
    """

    address: str | None = None
    cpus: float = 1.0
    max_staleness: int = 1
    replacements: int = 3
    start_timeout: float = 120.0

    def __post_init__(self) -> None:
        refuse_not_positive("data.collector.ray.", {"cpus": self.cpus, "start_timeout": self.start_timeout})
        counts = {"max_staleness": self.max_staleness, "replacements": self.replacements}
        refuse_negative("data.collector.ray.", counts)


@dataclass
class CollectorOptions:
    """Where and how transitions are collected.

    Args:
        num_envs: simulators, per process.
        threads: that step native simulators (`data.simulator`), per process; those in Python step one after another.
        max_steps: decisions after which a training episode is truncated, where the task would let it go on; evaluation
            has the task's own limit. For policies that are stuck once they have failed, which fills the replay buffer
            with steps that teach nothing. Null leaves it to the task.
        stagger: begin out of phase: the first episode of every simulator is truncated at another step of its limit, at
            the start and whenever simulators begin anew, as after a checkpoint. Otherwise simulators that begin
            together stay together, and one iteration holds one slice of every episode. Such short episodes are
            bootstrapped, and left out of the returns and successes of training.
        workers: processes or Ray actors that collect, on CPUs; 0 collects in this process. Null is one process beside
            the learner where it has two cores or more, else 0, as where a large network learns on a GPU, and acts
            there; a resumed run has what the run began with.
        overlap: worker processes collect the next segment while the learner learns, by the weights that it began the
            iteration with: what it learns from is one version old. Otherwise they wait for the newest weights.
        asynchronous: workers never wait for the learner: which weights collect what then depends on time.
        worker_timeout: seconds without a step (asynchronous, or on Ray: a segment) after which a worker counts as
            stuck: a process ends the run with an error, a Ray actor is replaced. Where it makes simulators, or has all
            of them begin anew, it has at least 120.
        backend: `process` on this machine, or `ray` on a cluster.
        ray: options of the latter.
    """

    num_envs: int = 20
    threads: int = 1
    max_steps: int | None = None
    stagger: bool = False
    workers: int | None = None
    overlap: bool = True
    asynchronous: bool = False
    worker_timeout: float = 30.0
    backend: Literal["process", "ray"] = "process"
    ray: RayOptions = field(default_factory=RayOptions)

    def __post_init__(self) -> None:
        counts = {"num_envs": self.num_envs, "threads": self.threads}
        refuse_not_positive("data.collector.", counts | {"worker_timeout": self.worker_timeout})
        if self.max_steps is not None:
            refuse_not_positive("data.collector.", {"max_steps": self.max_steps})
        refuse_negative("data.collector.", {"workers": self.workers or 0})
        if self.backend == "ray" and not self.workers:
            raise UserError("data.collector.backend=ray needs actors: set data.collector.workers to at least 1")
        if self.asynchronous and self.workers == 0:
            raise UserError("data.collector.asynchronous=true needs workers: set data.collector.workers to at least 1")

    def processes(self, learners: int = 1, on_device: bool = False) -> int:
        """How many workers each of so many learners on this machine has; 0 where it collects itself.

        Args:
            learners: on this machine.
            on_device: whether the policy acts where it learns, on a device that this process alone uses.
        """
        if self.workers is not None:
            return self.workers
        return int(self.asynchronous or (not on_device and cores() >= 2 * learners))

    def simulated(self, task: Simulation) -> Simulation:
        """The task as training simulates it: by `threads`, shortened to `max_steps`, out of phase with `stagger`."""
        stepped = copied(task if self.threads == 1 else on_threads(task, self.threads))
        shortened = stepped if self.max_steps is None else Shortened(stepped, self.max_steps)
        return Staggered(shortened) if self.stagger else shortened

    def refuse_uneven(self, frames: int, learners: int) -> None:
        """Raise a UserError when an iteration's `frames` are no whole steps of all simulators of all learners."""
        together = self.simulators_together * learners
        if frames % together:
            raise UserError(
                f"data.frames_per_iteration={frames} must be a multiple of the {together} "
                "simulators that step together (data.collector.num_envs × workers × learners)"
            )

    def notes(self, horizon: int | None, frames: int, every: int) -> list[str]:
        """What checkpoints do to episodes, where they end ones that are running.

        Args:
            horizon: decisions of a training episode, where it has a limit.
            frames: transitions of an iteration.
            every: iterations between two checkpoints.
        """
        steps = every * frames // self.simulators_together
        if horizon is None or self._never_waits:  # then episodes begin anew when a run is resumed, and no other time
            return []
        if self.stagger and steps < 2 * horizon:
            return [
                f"with data.collector.stagger a checkpoint begins new short episodes, here every {steps} steps of a "
                f"simulator, whose episodes have {horizon}: hardly one is whole, and late phases are rarely seen; "
                f"choose checkpoint.every of at least {-(-2 * horizon * every // steps)}"
            ]
        if self.stagger or steps % horizon == 0:
            return []
        return [
            f"a checkpoint ends all episodes, here every {steps} steps of a simulator, inside an episode's {horizon}; "
            "choose checkpoint.every so that it falls on their ends"
        ]

    @property
    def simulators_together(self) -> int:
        """Simulators that step together, and are behind one segment of transitions."""
        return self.num_envs * (1 if self._never_waits else self.workers or 1)

    @property
    def _never_waits(self) -> bool:
        """Whether workers go on whatever the learner does, each with segments of its own."""
        return self.asynchronous and self.backend == "process"


@dataclass
class EvaluationOptions:
    """Evaluation episodes, on fixed goals of their own.

    Args:
        episodes: per validation.
        test_episodes: per `gipo test`, on other goals than those of validation.
        num_envs: simulators.
        seed: of goals and sampling noise; the same at every validation.
        deterministic: act by the most likely action instead of sampling.
        max_steps: decisions after which an evaluation episode is cut; null leaves it to the task, which must then have
            a time limit: without one an episode may never end.
    """

    episodes: int = 20
    test_episodes: int = 50
    num_envs: int = 10
    seed: int = 1_000_003
    deterministic: bool = False
    max_steps: int | None = None

    def __post_init__(self) -> None:
        sizes = ["episodes", "test_episodes", "num_envs"] + ["max_steps"] * (self.max_steps is not None)
        refuse_not_positive("data.evaluation.", {name: getattr(self, name) for name in sizes})
        refuse_negative("data.evaluation.", {"seed": self.seed})

    def simulators(self, task: Simulation) -> EnvBase:
        """The simulators of a task, batch size [num_envs], whose answers stay what they were."""
        return copied(task).make_evaluation(self.num_envs, self.seed)


def refuse_not_positive(prefix: str, values: Mapping[str, float]) -> None:
    """Raise a UserError that names the first value that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{prefix}{name} must be positive, got {value}")


def refuse_negative(prefix: str, values: Mapping[str, float]) -> None:
    """Raise a UserError that names the first value below 0."""
    for name, value in values.items():
        if value < 0:
            raise UserError(f"{prefix}{name} must not be negative, got {value}")


def refuse_no_share(prefix: str, values: Mapping[str, float]) -> None:
    """Raise a UserError that names the first value outside of [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(f"{prefix}{name} must lie in [0, 1], got {value}")


def run_length(total: int, each: int, warm_up: int) -> tuple[int, int]:
    """Iterations of a run, and the environment steps that it will have collected at its end.

    Args:
        total: environment steps, warm-up excluded.
        each: of an iteration.
        warm_up: that the first iteration collects at least.
    """
    iterations, first = -(-total // each), max(1, -(-warm_up // each))
    return iterations, (iterations - 1 + first) * each
