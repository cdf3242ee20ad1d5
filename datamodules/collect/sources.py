"""Where a run's transitions come from: in this process, worker processes or Ray, across checkpoints."""

from dataclasses import replace
from typing import Any

from tensordict import TensorDict

from datamodules.collect.episode_returns import EpisodeTracker
from datamodules.collect.processes import WorkerRollouts
from datamodules.collect.random_state import generator_states, restore_generators
from datamodules.collect.ray_actors import RayRollouts
from datamodules.collect.rollouts import Collection, InProcessRollouts, Rollouts
from datamodules.envs.simulation import Simulation
from datamodules.options import CollectorOptions
from gipo.distributed import ranks
from gipo.policies import Policy


class RolloutSource:
    """The rollouts of a run, which start with its first segment, and what is to be kept of them in a checkpoint.

    Args:
        options: where and how transitions are collected.
        task: what to simulate.

    Raises:
        UserError: when the options ask for what cannot be done with this task.
    """

    def __init__(self, options: CollectorOptions, task: Simulation):
        self.options, self.task = options, options.simulated(task)
        self.frames = 0  # environment steps so far, of all learners
        self.episodes = EpisodeTracker()
        self.rollouts: Rollouts | None = None
        self.at_boundary = False  # whether the next segment begins new episodes
        self._next_episode = 0
        self._generators: dict[str, Any] | None = None  # to go on with, after a checkpoint

    def start(self, frames: int, policy: Policy, store_params: bool, seed: int, iteration: int) -> None:
        """Start simulators, for segments of `frames` transitions; arguments are as for `Collection` and `rollouts`."""
        num_envs = self.options.num_envs
        what = Collection(self.task, num_envs, frames, policy, store_params, seed, self._next_episode)
        self.rollouts = rollouts(what, self.options, iteration)

    def act_by(self, policy: Policy, seed: int) -> None:
        """Act by `policy` from the next segment on; at a boundary in new episodes, which depend on `seed` alone."""
        assert self.rollouts is not None
        if self.at_boundary:
            if self.rollouts.restart(seed):
                self.episodes.drop_unfinished()
            if self._generators is not None:
                restore_generators(self._generators)
            self.at_boundary, self._generators = False, None
        self.rollouts.update(policy)

    def collect(self) -> TensorDict:
        """The next segment of transitions [M]."""
        assert self.rollouts is not None
        return self.rollouts.collect()

    def count(self, segment: TensorDict) -> None:
        """Take a segment that was kept into the running figures."""
        self.episodes.add(segment)
        self.frames += len(segment) * ranks.count()

    def state_dict(self) -> dict[str, Any]:
        """Counters, finished episodes and the process's random generators, as plain data; once it has started."""
        assert self.rollouts is not None
        return {
            "frames": self.frames,
            "next_episode": self.rollouts.next_episode,
            "episodes": self.episodes.state_dict(),
            "generators": generator_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`: the next segment begins new episodes."""
        self.frames, self._next_episode = state["frames"], state["next_episode"]
        self.episodes.load_state_dict(state["episodes"])
        self.at_boundary, self._generators = True, state["generators"]

    def close(self) -> None:
        """Close simulators and workers; safe to call twice."""
        if self.rollouts is not None:
            self.rollouts.close()
            self.rollouts = None


def rollouts(what: Collection, options: CollectorOptions, iteration: int) -> Rollouts:
    """Start collecting: in this process, in worker processes or on Ray.

    Args:
        what: to collect.
        options: where and how.
        iteration: that comes next; worker processes, which never begin again, go on with other goals and noise.
    """
    if options.workers == 0:
        return InProcessRollouts(what)
    if options.backend == "ray":
        return RayRollouts(what, options)
    return WorkerRollouts(replace(what, seed=what.seed + iteration), options)
