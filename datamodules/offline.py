"""Offline data: logs that came back from robots, as ready batches; nothing is collected."""

from typing import Any

from tensordict import TensorDict
from torchrl.data.replay_buffers import Sampler

from datamodules.advantages import GAE, Estimator
from datamodules.base import Once, PolicyDataModule, of_all_ranks
from datamodules.collect.random_state import generator_states, restore_generators
from datamodules.envs.choice import Simulator
from datamodules.envs.simulation import Simulation
from datamodules.ingest import IngestOptions
from datamodules.options import EvaluationOptions, refuse_negative, refuse_no_share, refuse_not_positive
from datamodules.replay.behaviour import BehaviourOptions
from datamodules.replay.logged import LogReplay
from datamodules.replay.logs import Logs
from datamodules.replay.observation_moments import learn_moments
from datamodules.replay.people_share import PeopleShare
from datamodules.replay.sampling import check_sampler
from gipo.common.checkpoint_head import TrainedOn
from gipo.common.errors import UserError
from gipo.policies import Spaces

# Of spaces, what must be the same where a policy learns and where it is evaluated.
ACTED_ON = ("observation_size", "image", "cameras", "decision", "instruction_bytes")
STATE = ("key", "iteration", "replay", "generators")


class OfflineDataModule(PolicyDataModule):
    """Serves stale transitions from robot logs, LeRobot and Minari datasets, in any mix.

    They are verified, audited and converted once, to a memory-mapped store; a second start finds it by the content
    of the sources. A new policy standardises by the moments of their observations. Saving a checkpoint changes nothing:
    a resumed run continues exactly like the one that went on.

    Args:
        logs: files or folders: MCAP logs of gipo-robot, LeRobot v3 and Minari datasets.
        iterations: training iterations of the run.
        rounds: batches drawn per iteration.
        batch: transitions per batch, of all learners together.
        refresh_every: iterations between two recomputations of all advantages with the current critic.
        estimator: advantage estimator, `datamodules.advantages.GAE` or `.VTrace`.
        sampler: TorchRL sampler; uniform when null. `torchrl.data.StalenessAwareSampler` prefers fresh data.
        human_share: share of every batch that are persons' steps, in place of a sampler; null for as many as the logs
            have. With 1 a policy is corrected by persons alone (DAgger), where `model.human_coef` clones them.
        reward_scale: factor on rewards where advantages are computed.
        min_ess: the run is refused when the effective sample size of the data, as a share, is below this for the
            policy it starts from.
        successes_only: learn from episodes that succeeded alone.
        ingest: how sources are checked and converted.
        behaviour: how to model who acted, for sources that hold no log-probs; they are refused without.
        action_low: lower bounds of an action, for sources that do not say them.
        action_high: upper bounds of an action, for sources that do not say them.
        chunk: actions that a policy that sees is to decide on at once, for datasets with videos (`ingest.camera`).
        task: to evaluate on, as in `OnlineDataModule`; null for none.
        simulator: what simulates it, as there.
        evaluation: evaluation episodes.
        seed: of sampling; that of `seed_everything` when null, as always on the command line.
    """

    axis = "iterations"

    def __init__(
        self,
        logs: str | list[str],
        iterations: int = 60,
        rounds: int = 32,
        batch: int = 512,
        refresh_every: int = 1,
        estimator: Estimator = GAE(),  # noqa: B008 - frozen
        sampler: Sampler | None = None,
        human_share: float | None = None,
        reward_scale: float = 0.1,
        min_ess: float = 0.02,
        successes_only: bool = False,
        ingest: IngestOptions = IngestOptions(),  # noqa: B008 - frozen
        behaviour: BehaviourOptions | None = None,
        action_low: list[float] | None = None,
        action_high: list[float] | None = None,
        chunk: int | None = None,
        task: str | Simulation | None = None,
        simulator: Simulator = "auto",
        evaluation: EvaluationOptions = EvaluationOptions(),  # noqa: B008 - read only
        seed: int | None = None,
    ):
        super().__init__(task, simulator, evaluation, seed)
        self.logs: Logs = Logs(logs, ingest, behaviour, self.seed, action_low, action_high, chunk, successes_only)
        self.iterations = self.total = iterations
        self.rounds, self.batch, self.refresh_every = rounds, batch, refresh_every
        self.estimator, self.sampler, self.reward_scale = estimator, sampler, reward_scale
        self.min_ess, self.human_share = min_ess, human_share
        if human_share is not None and sampler is not None:
            raise UserError("data.human_share says what is drawn, and so does data.sampler; leave one of the two out")
        if human_share is not None:
            refuse_no_share("data.", {"human_share": human_share})
        sizes = {"iterations": iterations, "rounds": rounds, "batch": batch, "refresh_every": refresh_every}
        refuse_not_positive("data.", sizes | {"reward_scale": reward_scale})
        refuse_negative("data.", {"seed": self.seed})
        refuse_no_share("data.", {"min_ess": min_ess})
        self._replay: LogReplay | None = None

    @property
    def spaces(self) -> Spaces:
        """What a policy for these logs is built for."""
        return self.logs.spaces

    @property
    def privileged_size(self) -> int:
        """G, the numbers of the logs that a critic may see and a policy does not get; 0 where they hold none."""
        return self.logs.privileged_size

    @property
    def position(self) -> int:
        """Training iterations done so far."""
        return self.iteration

    @property
    def title(self) -> str:
        """What the run is about: how many logged steps there are to learn from."""
        return f"{self.logs.store.facts.steps:,} logged steps"

    def check_evaluation(self) -> None:
        """Refuse a task whose episodes may never end, or in which a policy for these logs could not act.

        Raises:
            UserError: naming what differs.
        """
        super().check_evaluation()
        if self.task is None:
            return
        there, logged = self.task.spaces(self.evaluation_env), self.logs.spaces
        for name in ACTED_ON:
            found, wanted = getattr(there, name, None), getattr(logged, name, None)
            # Whoever wrote a data set may have called its cameras otherwise, but in another order they are others.
            if name == "cameras" and set(found or ()) != set(wanted or ()):
                continue
            if found != wanted:
                raise UserError(
                    f"data.task={self.task.name} cannot evaluate a policy for these logs: {name} {found} there, and "
                    f"{wanted} in the logs; name the task that they are of, or data.task=null"
                )

    def setup(self, stage: str) -> None:
        """Refuse what cannot be divided: every learner reads all logs, and draws its part of a batch."""
        if stage == "fit":
            self.check_learners()

    def check_learners(self) -> None:
        """Refuse what cannot be divided between the learners, nor each one's part of a batch between people and others.

        Raises:
            UserError: naming the option.
        """
        super().check_learners()
        if self.human_share is not None:
            PeopleShare.refuse_rounded(self.human_share, self.part("batch"))

    def train_dataloader(self) -> Once:
        """One batch per epoch: refresh and sample."""
        return Once(self._iterate)

    def metrics(self) -> dict[str, float]:
        """No figures: logs do not change while the policy learns from them."""
        return {}

    def provenance(self) -> TrainedOn:
        """What a checkpoint says of the data its policy was trained on."""
        assert self.trainer is not None
        # What the logs do not say, such as datasets of others, is what it was for the policy that learns from them.
        module: Any = self.trainer.lightning_module
        steps, interface = self.logs.store.facts.steps, (module.interface or {}) | self.logs.interface
        found: TrainedOn = {"frames": steps, "interface": interface, **self.logs.provenance}
        return found if self.task is None else {**found, "task": self.task.name, "simulator": self.task.simulator}

    def state_dict(self) -> dict[str, Any]:
        """Iteration, advantages, and the state of sampler and generators; of all learners, on the first."""
        if self._replay is None:
            return self._restored
        return of_all_ranks({
            "key": self.logs.store.facts.key,
            "iteration": self.iteration,
            "replay": self._replay.state_dict(),
            "generators": generator_states(),
        })  # fmt: skip

    def check(self, state_dict: dict[str, Any]) -> None:
        """Refuse a state from which this run cannot go on.

        Raises:
            UserError: when it is incomplete or of other logs.
        """
        missing = [name for name in STATE if name not in state_dict]
        if missing:
            raise UserError(
                f"the checkpoint has no training state of logs to resume from: {', '.join(missing)} missing; "
                "to start from its policy, give it as --model.init_from"
            )
        self.check_logs(state_dict["key"])
        self.check_as_many(state_dict)
        check_sampler(state_dict["replay"]["sampler"], self.sampler)

    def restore(self, state_dict: dict[str, Any]) -> None:
        """Continue from this learner's state, which `check` accepts."""
        self.iteration = state_dict["iteration"]
        self._restored = state_dict

    def _iterate(self) -> TensorDict:
        policy = self.whole_policy()
        if self._replay is None:
            frames = self.logs.frames(policy, self.reads_behaviour())
            self._replay = LogReplay(
                frames, self.estimator, self.sampler, self.reward_scale, self.own_seed, self.human_share,
                self.logs.seen,
            )  # fmt: skip
            learn_moments(policy, frames["observation"])
            if self.policy.wants_privileged:
                self.policy.learn_privileged(frames["privileged"])
            if self._restored:
                self._replay.load_state_dict(self._restored["replay"])
                restore_generators(self._restored["generators"])
                self._restored = {}
        if self.iteration % self.refresh_every == 0:
            self._replay.refresh(policy)
        self.iteration += 1
        return self._replay.sample(self.rounds, self.part("batch"), int(policy.version))
