"""Which source of transitions the options of collection ask for."""

from datamodules.collect.processes import WorkerRollouts
from datamodules.collect.ray_actors import RayRollouts
from datamodules.collect.rollouts import InProcessRollouts, Rollouts
from datamodules.envs.simulation import Simulation
from datamodules.options import CollectorOptions
from gipo.policies import Policy


def start(
    options: CollectorOptions,
    task: Simulation,
    frames: int,
    policy: Policy,
    store_params: bool,
    seed: int,
    first_episode: int,
    iteration: int,
) -> Rollouts:
    """Start collecting: in this process, in worker processes or on Ray.

    Args:
        options: where and how.
        task: what to simulate.
        frames: transitions per chunk.
        policy: acts.
        store_params: keep the behaviour policy's distribution parameters.
        seed: of goals and sampling noise.
        first_episode: number of the first episode.
        iteration: that comes next; worker processes, which never begin again, go on with other goals and noise.
    """
    what = (options.simulated(task), options.num_envs, frames, policy, store_params)
    if options.workers == 0:
        return InProcessRollouts(*what, seed, first_episode)
    how = (first_episode, options.workers, options.asynchronous, options.worker_timeout)
    if options.backend == "ray":
        return RayRollouts(*what, seed, *how, options.ray)
    return WorkerRollouts(*what, seed + iteration, *how)
