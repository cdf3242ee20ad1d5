"""Online data: one ready batch per training iteration, which is an epoch of Lightning's.

The whole loop, step by step:

    weights     InProcessRollouts.update              datamodules/collect/rollouts.py     the newest, to whoever acts
    collect     InProcessRollouts.collect             datamodules/collect/rollouts.py     a segment of transitions, …
    act         Actor.forward                         datamodules/collect/actor.py        … with log-probs and version
    keep        Replay.extend                         datamodules/replay/ring.py          in a ring; the oldest leave
    refresh     Replay.refresh                        datamodules/replay/ring.py          advantages and value targets …
    value       value_frames                          datamodules/replay/values.py        … by the critic as it is now
    sample      Replay.sample                         datamodules/replay/ring.py          one TensorDict [rounds, batch]
    learn       GIPOModule.training_step              gipo/module.py                      from every batch, by …
    objective   policy_loss                           gipo/objective.py                   … one loss per update
    log         CollectionMetrics.on_train_batch_end  gipo/callbacks/reporting.py         figures, to the loggers
    evaluate    evaluate                              datamodules/collect/evaluation.py   when due: fixed episodes
    checkpoint  LastCheckpoint.on_train_epoch_end     gipo/callbacks/last_checkpoint.py   when due: all a run needs

`OnlineDataModule._iterate` goes from weights to sample. On two cores and more a worker takes the first three steps
(`processes.py`, on Ray `ray_actors.py`) while the learner learns: iteration k learns from what was collected during
k − 1, by the weights that k − 1 began with. A test runs an iteration in one process and holds it against this list.
"""

from typing import Any, Literal

import torch
from tensordict import TensorDict
from torchrl.data.replay_buffers import Sampler

from datamodules.advantages import GAE, Estimator
from datamodules.base import Once, PolicyDataModule, of_all_ranks
from datamodules.collect.evaluation import EvaluationWorkers
from datamodules.collect.random_state import seed_of
from datamodules.collect.sources import RolloutSource
from datamodules.envs.choice import Simulator
from datamodules.envs.interface import recorded_interface
from datamodules.envs.simulation import Simulation
from datamodules.ingest import IngestOptions
from datamodules.options import CollectorOptions, EvaluationOptions, refuse_negative, refuse_not_positive, run_length
from datamodules.replay.behaviour import BehaviourOptions
from datamodules.replay.logs import LOGS_SHARE, MIN_ESS, Logs, refuse_idle
from datamodules.replay.mixed import LoggedShare
from datamodules.replay.observation_moments import look_around
from datamodules.replay.ring import Replay, check_replay, how_valued, refuse_bad_buffer, worth_keeping
from gipo.common.checkpoint_head import TrainedOn
from gipo.common.errors import UserError
from gipo.distributed import ranks
from gipo.policies import Policy, Spaces

STATE = ("task", "frames", "iteration", "next_episode", "episodes", "replay", "generators")


class OnlineDataModule(PolicyDataModule):
    """Collects transitions with the policy being trained and serves them from a replay buffer.

    One training iteration (one Lightning epoch) collects `frames_per_iteration` environment steps, refreshes the
    advantages and yields one TensorDict [rounds, batch]. Saving a checkpoint is an episode boundary: all simulators
    begin new episodes afterwards, so that a resumed in-process run continues exactly like the one that went on.

    Several learners (`--trainer.strategy=ddp`) each collect, keep and draw an equal part: what is counted in
    environment steps or transitions is of all of them together, `collector` is of each.

    Args:
        task: a MetaWorld task (`reach-v3`), any registered Gymnasium id (`Pendulum-v1`), one of EnvPool
            (`envpool:HalfCheetah-v5`), or the class path and options of a simulation, such as `datamodules.vla.ToyVLA`.
            Where it executes chunks of actions, frames and transitions count chunks.
        simulator: of MetaWorld's tasks: its own `python`, `envpool`'s C++, or `auto`: the latter where it is installed
            and the task is the same in it. A resumed run goes on with what it began with.
        total_frames: environment steps of the whole run, warm-up excluded: what `iterations` comes to, which `gipo fit`
            makes; a Trainer of your own makes its max_epochs.
        frames_per_iteration: environment steps of an iteration.
        warmup_frames: environment steps collected before the first update.
        capacity: transitions kept in the replay buffer.
        rounds: batches drawn per iteration.
        batch: transitions per batch, of all learners together.
        advantages: `recompute` values the whole buffer with the current critic; `stored` values new frames once. Logs
            are always recomputed.
        refresh_every: iterations between two recomputations.
        estimator: advantage estimator, `datamodules.advantages.GAE` or `.VTrace`.
        sampler: of what was collected; uniform when null. `torchrl.data.StalenessAwareSampler` prefers fresh data.
        reward_scale: factor on rewards where advantages are computed.
        freeze_moments: keep the moments of observations of `model.init_from`: what varied little there is blown up.
        store_params: keep the behaviour policy's distribution parameters (half precision), for an exact KL.
        replay_device: `learner` keeps the buffer where the learner is, so that batches are not copied there.
        collector: where and how transitions are collected.
        evaluation: evaluation episodes.
        logs: logs to learn from beside what is collected, as in `OfflineDataModule`; none when null.
        logs_share: share of every batch that is drawn from the logs, rounded to whole transitions.
        min_ess: the run is refused when the effective sample size of the logs is below this share.
        ingest: how logs are checked and converted.
        behaviour: how to model who acted, for logs that hold no log-probs; they are refused without.
        seed: of goals, noise and sampling; that of `seed_everything` when null, as always on the command line.
    """

    axis = "frames"
    divided = ("frames_per_iteration", "warmup_frames", "capacity", "batch")
    task: Simulation
    advantages: Literal["recompute", "stored"]

    def __init__(
        self,
        task: str | Simulation = "reach-v3",
        simulator: Simulator = "auto",
        total_frames: int = 120_000,
        frames_per_iteration: int = 1000,
        warmup_frames: int = 0,
        capacity: int = 10_000,
        rounds: int = 32,
        batch: int = 512,
        advantages: Literal["recompute", "stored"] = "recompute",
        refresh_every: int = 1,
        estimator: Estimator = GAE(),  # noqa: B008 - frozen
        sampler: Sampler | None = None,
        reward_scale: float = 0.1,
        freeze_moments: bool = False,
        store_params: bool = False,
        replay_device: Literal["cpu", "learner"] = "cpu",
        collector: CollectorOptions = CollectorOptions(),  # noqa: B008 - read only
        evaluation: EvaluationOptions = EvaluationOptions(),  # noqa: B008 - read only
        logs: str | list[str] | None = None,
        logs_share: float = LOGS_SHARE,
        min_ess: float = MIN_ESS,
        ingest: IngestOptions = IngestOptions(),  # noqa: B008 - frozen
        behaviour: BehaviourOptions | None = None,
        seed: int | None = None,
    ):
        super().__init__(task, simulator, evaluation, seed)
        self.total_frames, self.frames_per_iteration = total_frames, frames_per_iteration
        self.warmup_frames, self.capacity, self.rounds, self.batch = warmup_frames, capacity, rounds, batch
        self.advantages, self.refresh_every, self.estimator = advantages, refresh_every, estimator
        self.sampler, self.reward_scale, self.freeze_moments = sampler, reward_scale, freeze_moments
        self.store_params, self.replay_device, self.collector = store_params, replay_device, collector
        refuse_idle(logs, logs_share, min_ess, ingest, behaviour)
        self.logs, self.min_ess = None if logs is None else Logs(logs, ingest, behaviour, self.seed), min_ess
        self._logged = None if self.logs is None else LoggedShare(self.logs, logs_share, estimator, reward_scale)
        self._refuse_bad_sizes()
        self.iterations, self.total = run_length(total_frames, frames_per_iteration, min(warmup_frames, capacity))
        self._source = RolloutSource(collector, self.task, evaluation)
        self._replay: Replay | None = None

    @property
    def spaces(self) -> Spaces:
        """What a policy for this task is built for."""
        return self.task.spaces(self.evaluation_env)

    @property
    def _device(self) -> torch.device | None:
        """Where the replay buffer is; None before it is known where the learner is."""
        if self.replay_device == "cpu":
            return torch.device("cpu")
        return None if self.trainer is None else self.trainer.strategy.root_device

    @property
    def position(self) -> int:
        """Environment steps collected so far, of all learners."""
        return self._source.frames

    @property
    def interface(self) -> dict[str, Any] | None:
        """Names, units and rate of the task that is collected from, where it has true ones."""
        return self.task.interface

    def notes(self, every: int) -> list[str]:
        """What a checkpoint every `every` iterations would do to training episodes, where it cuts them short."""
        found = super().notes(every)
        if self.iterations <= every:
            return found
        return found + self.collector.notes(self._source.task.horizon, self.part("frames_per_iteration"), every)

    def setup(self, stage: str) -> None:
        """Make room for a run; simulators start with the first batch."""
        if stage == "fit" and self._replay is None:
            self.check_learners()
            self._replay = Replay(
                self.part("capacity"), self.estimator, self.advantages, self.sampler, self.reward_scale, self.own_seed,
                self._device or "cpu",
            )  # fmt: skip
            if self._restored:
                self._replay.load_state_dict(self._restored["replay"])

    def train_dataloader(self) -> Once:
        """One batch per epoch: collect, refresh, sample."""
        return Once(self._iterate)

    def metrics(self) -> dict[str, float]:
        """`replay/size`, and return and success of the last training episodes, of all learners."""
        others = ranks.others((len(self._replay or []), list(self._source.episodes.finished)))
        size = len(self._replay or []) + sum(size for size, _ in others)
        return {"replay/size": float(size), **self._source.episodes.means([one for _, some in others for one in some])}

    def provenance(self) -> TrainedOn:
        """What a checkpoint says of the data its policy was trained on."""
        task, said = self.task, recorded_interface(self.task, self.spaces)
        found: TrainedOn = {"task": task.name, "simulator": task.simulator, "frames": self.position, "interface": said}
        return found if self.logs is None else {**found, **self.logs.provenance}

    def state_dict(self) -> dict[str, Any]:
        """Counters, replay and generators, also after the run. Taking it ends episodes, unless it is `unnoticed`."""
        if self._restored or self._replay is None or not self._source.frames:
            return self._restored
        self._source.at_boundary |= self._noticed
        return of_all_ranks({
            "task": self.task.name,
            "simulator": self.task.simulator,
            "iteration": self.iteration,
            "frames_per_iteration": self.frames_per_iteration,
            "replay": self._replay.state_dict(),
            "logs": None if self._logged is None else self._logged.state_dict(),
            **self._source.state_dict(),
        })  # fmt: skip

    def check(self, state_dict: dict[str, Any]) -> None:
        """Refuse a state from which this run cannot go on.

        Raises:
            UserError: when it is incomplete, of another task or of longer iterations, or its replay does not fit.
        """
        if missing := [name for name in STATE if name not in state_dict]:
            raise UserError(f"the checkpoint has no training state to resume from: {', '.join(missing)} missing")
        self.check_task(state_dict)
        self._source.check(state_dict, self.frames_per_iteration, self.learners)
        self.check_as_many(state_dict)
        valued = how_valued(self.estimator, self.reward_scale) if self.advantages == "stored" else None
        check_replay(state_dict["replay"], self.part("capacity"), self.store_params, self._device, self.sampler, valued)
        self.check_logs((state_dict.get("logs") or {}).get("key"))

    def restore(self, state_dict: dict[str, Any]) -> None:
        """Continue from this learner's state, which `check` accepts."""
        self.iteration, self._restored = state_dict["iteration"], state_dict
        self._source.load_state_dict(state_dict)
        if self._logged is not None:
            self._logged.load_state_dict(state_dict.get("logs"))
        if self._replay is not None:
            self._replay.load_state_dict(state_dict["replay"])

    def teardown(self, stage: str) -> None:
        """Close simulators and workers."""
        self._source.close()
        super().teardown(stage)

    def _iterate(self) -> TensorDict:
        policy, replay, trainer = self.whole_policy(), self._replay, self.trainer
        if replay is None or trainer is None:
            raise RuntimeError("OnlineDataModule.setup('fit') has not run")
        if self._source.rollouts is None:
            frames, seed = self.part("frames_per_iteration"), self.own_seed
            self._source.start(frames, policy, self.store_params, seed, self.iteration, trainer.num_devices)
            look_around(policy, self.evaluation_env, max(frames, self.part("warmup_frames")), seed)
        self._source.act_by(policy, seed_of(self.seed, self.iteration))
        self._restored = {}
        refresh_follows = self.iteration % self.refresh_every == 0
        self._collect(replay, policy, refresh_follows)
        while len(replay) < min(self.part("warmup_frames"), self.part("capacity")):
            self._collect(replay, policy, refresh_follows)
        if refresh_follows:
            replay.refresh(policy)
        self.iteration += 1
        version, batch = int(policy.version), self.part("batch")
        if self._logged is None:
            return replay.sample(self.rounds, batch, version)
        logged = self._logged.sample(policy, self.rounds, batch, refresh_follows, self.reads_behaviour(), self.own_seed)
        collected = replay.sample(self.rounds, batch - self._logged.part(batch), version)
        return torch.cat((logged.to(replay.device), collected), 1)

    @property
    def _evaluation_workers(self) -> EvaluationWorkers | None:
        return self._source.evaluation_workers

    def _collect(self, replay: Replay, policy: Policy, refresh_follows: bool) -> None:
        segment = self._source.collect()
        replay.extend(worth_keeping(segment, policy), policy, refresh_follows)  # first: it refuses what is not finite
        self.policy.learn_privileged(segment.get("privileged", None))
        if not self._moments_frozen:
            policy.learn_moments(segment["observation"].to(policy.version.device), pool=ranks.joined)
        self._source.count(segment)

    @property
    def _moments_frozen(self) -> bool:
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        # While the critic learns alone the policy stays what it was, moments included.
        return self.trainer.current_epoch < module.critic_warmup or bool(self.freeze_moments and module.init_from)

    def check_learners(self) -> None:
        """Refuse options that cannot be divided between the learners, nor between the simulators of each.

        Raises:
            UserError: naming the option.
        """
        super().check_learners()
        self.collector.refuse_uneven(self.frames_per_iteration, self.learners)
        if self._logged is not None:
            self._logged.refuse_bad_mix(self.part("batch"), self.store_params)

    def _refuse_bad_sizes(self) -> None:
        sizes = ("total_frames", "frames_per_iteration", "capacity", "rounds", "batch", "refresh_every", "reward_scale")
        refuse_not_positive("data.", {name: getattr(self, name) for name in sizes})
        refuse_negative("data.", {name: getattr(self, name) for name in ("warmup_frames", "seed")})
        self.check_learners()
        every = 1 if self.logs else self.refresh_every  # advantages of logs are recomputed in any case
        refuse_bad_buffer(self.capacity, self.frames_per_iteration, self.advantages, self.estimator, every)
