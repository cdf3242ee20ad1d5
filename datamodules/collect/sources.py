"""Where a run's transitions come from: in this process, worker processes or Ray, across checkpoints."""

from dataclasses import replace
from typing import Any

from tensordict import TensorDict

from datamodules.collect.actor import acts_on_device
from datamodules.collect.asynchronous import AsynchronousRollouts
from datamodules.collect.episode_returns import EpisodeTracker
from datamodules.collect.evaluation import EvaluationWorkers
from datamodules.collect.processes import WorkerRollouts
from datamodules.collect.random_state import generator_states, restore_generators
from datamodules.collect.ray_actors import RayRollouts
from datamodules.collect.rollouts import Collection, InProcessRollouts, Rollouts
from datamodules.envs.simulation import Simulation
from datamodules.options import CollectorOptions, EvaluationOptions
from gipo.common.errors import UserError
from gipo.distributed import ranks
from gipo.policies import Policy


class RolloutSource:
    """The rollouts of a run, which start with its first segment, and what is to be kept of them in a checkpoint.

    Args:
        options: where and how transitions are collected.
        task: what to simulate.
        evaluation: simulators that evaluation has.

    Raises:
        UserError: when the options ask for what cannot be done with this task.
    """

    def __init__(self, options: CollectorOptions, task: Simulation, evaluation: EvaluationOptions):
        self.options, self.task, self.evaluation = options, options.simulated(task), evaluation
        self.frames = 0  # environment steps so far, of all learners
        self.episodes = EpisodeTracker()
        self.rollouts: Rollouts | None = None
        self.at_boundary = False  # whether the next segment to begin is of new episodes
        self._workers: int | None = None  # of the run, once it has begun
        self._next_episode = 0
        self._ahead: TensorDict | None = None  # the next segment, where a checkpoint brought it
        self._drop_after_next = False  # whether what the next segment leaves unfinished is never finished
        self._generators: dict[str, Any] | None = None  # to go on with, after a checkpoint

    def start(
        self, frames: int, policy: Policy, store_params: bool, seed: int, iteration: int, learners: int = 1
    ) -> None:
        """Start simulators, for segments of `frames` transitions; `learners` are on this machine, this one included.

        The other arguments are as for `Collection` and `rollouts`.
        """
        if self._workers is None or self.options.workers is not None:
            self._workers = self.options.processes(learners, acts_on_device(policy))
        num_envs = self.options.num_envs
        what = Collection(self.task, num_envs, frames, policy, store_params, seed, self._next_episode)
        self.rollouts = rollouts(what, replace(self.options, workers=self._workers), self.evaluation, iteration)

    @property
    def evaluation_workers(self) -> EvaluationWorkers | None:
        """Worker processes that can take a share of evaluation."""
        return self.rollouts if isinstance(self.rollouts, EvaluationWorkers) else None

    def act_by(self, policy: Policy, seed: int) -> None:
        """Act by `policy` from the next segment that is begun; at a boundary in new episodes, which `seed` decides."""
        assert self.rollouts is not None
        if self.at_boundary:
            resumed, self._generators = self._generators, None
            if resumed is not None:
                restore_generators(resumed)  # from which a simulator's reset may draw
            # What a resumed run had not finished is never finished, even where its simulators cannot be restarted.
            cut = self.rollouts.restart(seed) or resumed is not None
            # A segment that was begun before the boundary belongs to the episodes that are running.
            self._drop_after_next = cut and self._begun is not None
            if cut and not self._drop_after_next:
                self.episodes.drop_unfinished()
            self.at_boundary = False
        self.rollouts.update(policy)

    def collect(self) -> TensorDict:
        """The next segment of transitions [M]; the one after it is begun where that is done beside the learner."""
        assert self.rollouts is not None
        segment, self._ahead = self._ahead, None
        if segment is None:
            segment = self.rollouts.collect()
        self.rollouts.begin()
        return segment

    def count(self, segment: TensorDict) -> None:
        """Take a segment that was kept into the running figures."""
        self.episodes.add(segment)
        self.frames += len(segment) * ranks.count()
        if self._drop_after_next:
            self.episodes.drop_unfinished()
            self._drop_after_next = False

    def state_dict(self) -> dict[str, Any]:
        """Counters, episodes, the next segment if it was begun, and the process's generators."""
        begun = None if self.rollouts is None else self._begun
        return {
            "workers": self._workers,
            "frames": self.frames,
            "ahead": None if begun is None else begun.state_dict(),
            "next_episode": self._next_episode if self.rollouts is None else self.rollouts.next_episode,
            "episodes": self.episodes.state_dict(),
            "generators": generator_states(),
        }

    def check(self, state: dict[str, Any], frames_per_iteration: int, learners: int = 1) -> None:
        """Refuse the state of a run with longer or shorter iterations, by which both its length and its ages count.

        And where the workers of that run, which go on unless the options say how many, cannot share its iterations.

        Raises:
            UserError: saying with which option the run goes on.
        """
        had = state.get("frames_per_iteration", frames_per_iteration)  # older checkpoints do not say
        if had != frames_per_iteration:
            raise UserError(
                f"the checkpoint's iterations are of {had:,} frames, data.frames_per_iteration={frames_per_iteration}; "
                f"resume with --data.frames_per_iteration={had}, or begin a new run from its policy by "
                "--model.init_from=CHECKPOINT"
            )
        if self.options.workers is None:
            replace(self.options, workers=state.get("workers", 0)).refuse_uneven(frames_per_iteration, learners)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`: the next segment to begin is of new episodes."""
        self.frames, self._next_episode = state["frames"], state["next_episode"]
        self._workers = state.get("workers", 0)
        if state.get("ahead") is not None:
            self._ahead = TensorDict().load_state_dict(state["ahead"], strict=False)
        self.episodes.load_state_dict(state["episodes"])
        self.at_boundary, self._generators = True, state["generators"]

    def close(self) -> None:
        """Close simulators and workers; safe to call twice."""
        if self.rollouts is not None:
            # Where another run of the trainer goes on from here, its episodes are others, of a seed of their own.
            self.at_boundary = True
            self._next_episode, self._ahead = self.rollouts.next_episode, None
            self.episodes.drop_unfinished()
            self.rollouts.close()
            self.rollouts = None

    @property
    def _begun(self) -> TensorDict | None:
        """The next segment, where it was begun already."""
        assert self.rollouts is not None
        return self.rollouts.ahead() if self._ahead is None else self._ahead


def rollouts(what: Collection, options: CollectorOptions, evaluation: EvaluationOptions, iteration: int) -> Rollouts:
    """Start collecting: in this process, in worker processes or on Ray.

    Args:
        what: to collect.
        options: where and how.
        evaluation: simulators that evaluation has; worker processes have them too.
        iteration: that comes next; asynchronous workers, which never begin again, go on with other goals and noise.
    """
    if options.workers == 0:
        return InProcessRollouts(what)
    if options.backend == "ray":
        return RayRollouts(what, options)
    if options.asynchronous:
        return AsynchronousRollouts(replace(what, seed=what.seed + iteration), options)
    return WorkerRollouts(what, options, evaluation)
