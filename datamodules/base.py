"""What every data module shares: evaluation in a simulator, where there is one, and the figures of a run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from lightning.pytorch import LightningDataModule
from tensordict import TensorDict
from torchrl.envs import EnvBase

from datamodules.advantages import Estimator
from datamodules.collect.actor import acting
from datamodules.collect.evaluation import Evaluation, EvaluationWorkers, evaluate
from datamodules.collect.random_state import seed_of, seed_of_process
from datamodules.envs.choice import Simulator, chosen, who_simulates
from datamodules.envs.simulation import Simulation, close_or_say, refuse_bad_environment
from datamodules.options import EvaluationOptions
from datamodules.replay.logs import Logs
from gipo.common.checkpoint_head import TrainedOn
from gipo.common.errors import UserError
from gipo.distributed import ranks
from gipo.distributed.sharding import WholePolicy
from gipo.objective import reads_behaviour
from gipo.policies import Policy, Spaces


class PolicyDataModule(LightningDataModule, ABC):
    """Yields one TensorDict [rounds, batch] of ready transitions per training iteration (one Lightning epoch).

    Args:
        task: simulator for evaluation, a name or a `Simulation` of its own; None for none.
        simulator: what simulates a task that is given by its name.
        evaluation: evaluation episodes.
        seed: of all randomness; that of `seed_everything` when null.
    """

    axis: ClassVar[str]  # what `position` counts, and the x-axis of every logger
    iterations: int  # training iterations of the whole run
    total: int  # `position` at its end
    iteration = 0  # training iterations done
    divided: ClassVar[tuple[str, ...]] = ("batch",)  # options of all learners together, of which each has a part
    estimator: Estimator  # of advantages
    store_params: bool = False  # whether batches hold the behaviour policy's distribution parameters
    logs: Logs | None = None  # what the run learns from beside what it collects
    min_ess: float = 0.0  # smallest effective sample size of the logs, as a share
    __str__ = object.__repr__  # Lightning's asks every loader for a batch

    def __init__(
        self, task: str | Simulation | None, simulator: Simulator, evaluation: EvaluationOptions, seed: int | None
    ):
        super().__init__()
        self.task: Simulation | None = chosen(task, simulator)
        self.evaluation = evaluation
        self.seed = (seed_of_process() or 0) if seed is None else seed
        self._evaluation_env: EnvBase | None = None
        self._whole_policy = WholePolicy()
        self._noticed = True  # that `state_dict` is taken
        self._restored: dict[str, Any] = {}  # the state to go on from, until the first iteration has done so

    @property
    @abstractmethod
    def spaces(self) -> Spaces:
        """What a policy for this data is built for."""

    @property
    def privileged_size(self) -> int:
        """G, the numbers that a critic may see and a policy does not get; 0 where the data hold none."""
        found = self.evaluation_env.observation_spec.get("privileged", None)
        return 0 if found is None else int(found.shape[-1])

    @property
    @abstractmethod
    def position(self) -> int:
        """How far the run is, counted in `axis`."""

    @property
    def title(self) -> str:
        """What the run is about, in a word or two: its task's name."""
        return self.evaluated_task.name

    @property
    def interface(self) -> dict[str, Any] | None:
        """Names, units and rate of the run's own simulator, as a checkpoint keeps them, where it has true ones."""
        return None

    @abstractmethod
    def provenance(self) -> TrainedOn:
        """What a checkpoint says of the data its policy was trained on."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Running figures of the data by name, such as `replay/size`, for the loggers and the progress bar."""

    @abstractmethod
    def check(self, state_dict: dict[str, Any]) -> None:
        """Refuse a state from which this run cannot go on, with a UserError."""

    @property
    def learners(self) -> int:
        """Number of learners (ranks) that share the run."""
        return 1 if self.trainer is None else self.trainer.num_devices * self.trainer.num_nodes

    def part(self, option: str) -> int:
        """This learner's part of an option that is `divided`."""
        return int(getattr(self, option)) // self.learners

    def check_learners(self) -> None:
        """Refuse options that cannot be divided between the learners of the run.

        Raises:
            UserError: naming the option.
        """
        for option in self.divided:
            if getattr(self, option) % self.learners:
                raise UserError(
                    f"data.{option}={getattr(self, option)} must be a multiple of the {self.learners} learners "
                    "(trainer.devices × trainer.num_nodes), each of which has a part of it"
                )

    @property
    def own_seed(self) -> int:
        """The seed of the run for its first learner, and another for each of the others."""
        return self.seed if ranks.rank() == 0 else seed_of(self.seed)

    @property
    def has_success(self) -> bool:
        """Whether episodes of evaluation say if they succeeded."""
        return self.task is not None and "success" in self.evaluation_env.observation_spec.keys()

    @property
    def evaluated_task(self) -> Simulation:
        """The task of evaluation.

        Raises:
            UserError: when none is named.
        """
        if self.task is None:
            raise UserError("evaluation needs a simulator: set data.task")
        return self.task

    @property
    def evaluation_env(self) -> EnvBase:
        """The simulators of `evaluated_task`, batch size [evaluation.num_envs]; made when first asked for."""
        if self._evaluation_env is None:
            made = self.evaluation.simulators(self.evaluated_task)
            refuse_bad_environment(made, self.evaluated_task)
            self._evaluation_env = made
        return self._evaluation_env

    def check_evaluation(self) -> None:
        """Refuse a task whose episodes may never end.

        Raises:
            UserError: naming the option that bounds them.
        """
        if self.task is not None and self.task.horizon is None and self.evaluation.max_steps is None:
            raise UserError(
                f"{self.task.name} has no time limit, so that an evaluation episode may never end; set "
                "data.evaluation.max_steps, or register the task with max_episode_steps"
            )

    def notes(self, every: int) -> list[str]:
        """Sentences that a user should read before a run that saves a checkpoint every `every` iterations."""
        if self.task is None:
            return []
        found = [who_simulates(self.task), None if self.logs is None else self.logs.of_another(self.task.name)]
        return [note for note in found if note is not None]

    def val_dataloader(self) -> "Once | list[Any]":
        """One batch of finished evaluation episodes; none without a simulator."""
        if self.task is None:
            return []
        return Once(lambda: self._evaluate(self.evaluation.episodes, self.evaluation.seed))

    def test_dataloader(self) -> "Once":
        """One batch of finished evaluation episodes, more of them and on other goals than those of validation."""
        return Once(lambda: self._evaluate(self.evaluation.test_episodes, self.evaluation.seed + 1))

    def teardown(self, stage: str) -> None:
        """Close the simulators of evaluation."""
        if self._evaluation_env is not None:
            close_or_say(self._evaluation_env.close, self.evaluated_task.name)
            self._evaluation_env = None

    def on_exception(self, exception: BaseException) -> None:
        """Close simulators and workers when a run fails, so that nothing is left running."""
        self.teardown("fit")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, where the trainer is fitting; evaluation needs none of it.

        Raises:
            UserError: when `check` refuses it.
        """
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if state_dict and fitting:
            self.check(state_dict)
            self.restore([state_dict, *state_dict.get("others", [])][ranks.rank()])

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """A context in which taking `state_dict` changes nothing, so that a run goes on as if it had not been taken."""
        self._noticed = False
        try:
            yield
        finally:
            self._noticed = True

    def check_logs(self, key: str | None) -> None:
        """Refuse the state of a run that learned from other logs, which have another `key`; None is none.

        Raises:
            UserError: saying what to do with the checkpoint.
        """
        if key != (None if self.logs is None else self.logs.store.facts.key):
            raise UserError(
                "the checkpoint was trained on other logs than data.logs, or on logs ingested in another way; "
                "to start a new run from its policy, give it as --model.init_from"
            )

    def check_as_many(self, state_dict: dict[str, Any]) -> None:
        """Refuse the state of more or fewer learners.

        Raises:
            UserError: naming both numbers.
        """
        saved = 1 + len(state_dict.get("others", []))
        if saved != self.learners:
            raise UserError(
                f"the checkpoint holds the replay of {saved} learners, the run has {self.learners} (trainer.devices × "
                "trainer.num_nodes); resume with as many, or start a new run from its policy with --model.init_from"
            )

    def check_task(self, state_dict: dict[str, Any]) -> None:
        """Refuse the state of a run on another task, or in other simulators.

        Raises:
            UserError: saying with which option the run goes on.
        """
        for option, name in (("task", "name"), ("simulator", "simulator")):
            trained, asked = state_dict.get(option, "python"), getattr(self.evaluated_task, name)
            if trained != asked:
                raise UserError(
                    f"the checkpoint was trained on {trained!r}, data.{option} is {asked!r}; resume it with the run's "
                    f"own configuration (--config RUN/config.yaml) or --data.{option}={trained}"
                )

    @abstractmethod
    def restore(self, state_dict: dict[str, Any]) -> None:
        """Continue from this learner's state, which `check` accepts."""

    def reads_behaviour(self, module: Any = None) -> bool:
        """Whether a module's objective, its anchor or the estimator reads behaviour log-probs; by default the run's."""
        module = self.trainer.lightning_module if module is None and self.trainer is not None else module
        return reads_behaviour(module.objective, module.kl_coef) or self.estimator.needs_log_ratio

    @property
    def policy(self) -> Policy:
        """The policy being trained."""
        assert self.trainer is not None
        policy = self.trainer.lightning_module.policy
        assert isinstance(policy, Policy)
        return policy

    def whole_policy(self) -> Policy:
        """The policy being trained, to act and to value with; put together where learners have parts of it."""
        return self._whole_policy(self.policy)

    @property
    def _evaluation_workers(self) -> EvaluationWorkers | None:
        """Processes that can take a share of evaluation."""
        return None

    def _evaluate(self, episodes: int, seed: int) -> TensorDict:
        policy = acting(self.whole_policy())
        asked = self.evaluation
        how = Evaluation(seed, asked.deterministic, asked.max_steps, self.evaluated_task.horizon)
        found = evaluate(self.evaluation_env, policy, episodes, how, self._evaluation_workers)
        # All ranks act on the same figures, also where their machines round differently.
        return ranks.of_the_first(found)


def of_all_ranks(own: dict[str, Any]) -> dict[str, Any]:
    """State of this rank; on the first also that of the others, for one checkpoint to hold everything."""
    _, *others = ranks.gathered(own)
    return own | {"others": others} if others else own


class Once:
    """A data loader of one batch, made when Lightning asks for it."""

    def __init__(self, make: Callable[[], TensorDict]):
        self._make = make

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[TensorDict]:
        yield self._make()
