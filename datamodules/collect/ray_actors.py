"""Collection on Ray: in-process collectors as actors on any number of machines, in bounded, reproducible order.

TorchRL's `RayCollector` (0.14.1) is not used: it waits for its actors without a limit of time, cannot put another
actor in the place of a dead one (the process group of its weight transfer is fixed when it starts), sends weights to
a busy actor only when its segment is done, and knows no limit of staleness. So each actor is our `InProcessRollouts`,
which is TorchRL's `Collector`, and the weights travel with the requests, as one immutable object of Ray's store.
"""

import copy
import os
import time
import warnings
from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict
from torch import Tensor

from datamodules.collect.episode_numbers import PartNumbers, RunNumbers
from datamodules.collect.random_state import seed_generators, worker_seed
from datamodules.collect.ray_cluster import RayCluster
from datamodules.collect.rollouts import Collection, InProcessRollouts, Rollouts
from datamodules.collect.worker_process import START
from datamodules.options import CollectorOptions
from gipo.common.errors import UserError
from gipo.common.terminal import tell
from gipo.policies import Policy


class RayRollouts(Rollouts):
    """Several Ray actors, each with `num_envs` simulators; a segment joins a part from every actor.

    Every request carries the weights to act with. `max_staleness` requests are under way ahead of the one whose segment
    is waited for, so that actors collect while the learner learns: a segment is at most that many calls of `update`
    old, at most `max_staleness` + 1 segments exist at a time, and which weights collect which segment does not depend
    on time. With 0, asynchronous collection is synchronous. One actor collects what `InProcessRollouts` would.

    An actor that dies, or takes more than `worker_timeout` seconds for its part of a segment, is replaced, with new
    episodes and noise of its own, and repeats what it owed; the run ends with an error when `ray.replacements` are used
    up.

    Args:
        what: to collect; a segment joins a part from every actor, and the task must be known on every machine.
        options: how many actors, whether they are asynchronous, how long they may be silent, and the cluster's.

    Raises:
        UserError: when there is no Ray or no cluster, or the actors cannot start.
    """

    def __init__(self, what: Collection, options: CollectorOptions):
        self._seed, self._timeout, self._options = what.seed, options.worker_timeout, options.ray
        self._ahead = options.ray.max_staleness if options.asynchronous else 0
        self._count = options.processes()
        self._replaced = 0
        self._run = RunNumbers(what.first_episode)
        self._cluster = RayCluster(options.ray.address, self._count * options.ray.cpus)
        self._ray = self._cluster.ray
        collecting = self._ray.remote(_Collecting)
        self._make = collecting.options(num_cpus=options.ray.cpus, max_restarts=0, max_task_retries=0).remote
        part = what.frames // self._count
        self._what = self._ray.put(replace(what, frames=part, policy=copy.deepcopy(what.policy).cpu(), first_episode=0))
        self._workers: list[_Worker] = []
        try:
            self._workers = [_Worker(index, PartNumbers(self._run)) for index in range(self._count)]
            for worker in self._workers:
                self._begin(worker)
            for worker in self._workers:
                self._meet(worker)
            self.update(what.policy)
        except BaseException:
            self.close()
            raise

    @property
    def next_episode(self) -> int:
        """The number that the next new episode gets."""
        return self._run.next

    def collect(self) -> TensorDict:
        """The next segment [M], part by part in the order of the actors.

        Raises:
            UserError: when an actor failed and cannot be replaced; all actors are gone then.
        """
        for worker in self._workers:
            while len(worker.requests) <= self._ahead:
                self._ask(worker, self._weights)
        deadline = time.monotonic() + self._timeout
        return torch.cat([worker.episodes(self._oldest(worker, deadline)) for worker in self._workers])

    def update(self, policy: Policy) -> None:
        """Send these weights, and their version, with every request from now on."""
        weights = {name: value.detach().cpu() for name, value in policy.state_dict().items()}
        self._weights = self._ray.put(weights)

    def restart(self, seed: int) -> bool:
        """Throw away what is under way, and begin new episodes in every actor."""
        self._seed = seed
        for worker in self._workers:
            worker.abandoned = [*worker.abandoned, *(request.part for request in worker.requests)]
            for part in worker.abandoned:
                self._ray.cancel(part)  # what it has begun it ends
            worker.requests.clear()
            worker.episodes.begin_again()
            worker.restart = self._seed_of(worker)
        return True

    def close(self) -> None:
        """End the actors, and the cluster where it was started here."""
        for worker in self._workers:
            self._end(worker)
        self._workers = []
        self._cluster.close()

    def _begin(self, worker: "_Worker") -> None:
        worker.actor = self._make(self._what, self._seed_of(worker))
        worker.hello = worker.actor.hello.remote()

    def _meet(self, worker: "_Worker") -> None:
        """Wait until an actor has built its simulators."""
        limit = self._options.start_timeout
        try:
            worker.process = self._ray.get(worker.hello, timeout=limit)
        except self._ray.exceptions.GetTimeoutError as error:
            raise UserError(
                f"Ray actor {worker.index} did not start within {limit:g} s (data.collector.ray.start_timeout); it "
                f"asks for {self._options.cpus:g} cores (data.collector.ray.cpus), all {self._count} for "
                f"{self._options.cpus * self._count:g}, of a cluster with {self._cluster.cores}. Where these are "
                "enough, its imports took longer"
            ) from error
        except self._ray.exceptions.RayError as error:
            if getattr(error, "actor_init_failed", True):
                raise UserError(f"Ray actor {worker.index} could not start: {_reason(error)}") from error
            self._replace(worker, "died")  # with its machine, which Ray had not noticed yet

    def _ask(self, worker: "_Worker", weights: Any) -> None:
        # The weights are held beside the request: who takes the place of a dead actor acts with the same.
        part = worker.actor.collect.remote(weights, worker.restart)
        worker.requests.append(_Request(part, weights, anew=worker.restart is not None))
        worker.restart = None

    def _oldest(self, worker: "_Worker", deadline: float) -> TensorDict:
        """The part of a segment that was asked for first."""
        errors = self._ray.exceptions
        while True:
            if worker.abandoned:  # has its own time, which ends where it fails too
                self._ray.wait(worker.abandoned, num_returns=len(worker.abandoned), timeout=self._timeout)
                worker.abandoned = []
                deadline = time.monotonic() + self._timeout
            request = worker.requests[0]
            limit = deadline + max(START - self._timeout, 0.0) * request.anew
            try:
                part = self._ray.get(request.part, timeout=max(limit - time.monotonic(), 0.1))
                worker.requests.popleft()
                return part
            except errors.GetTimeoutError:
                self._replace(worker, f"sent nothing for {self._timeout:g} s (data.collector.worker_timeout)")
            except (errors.RayActorError, errors.ObjectLostError):  # the process, or its whole machine
                self._replace(worker, "died")
            except errors.RayError as error:  # raised by the simulator or the policy: it would be raised again
                self.close()
                raise UserError(f"collection failed: {worker.name}: {_reason(error)}; all actors were ended") from error
            deadline = time.monotonic() + self._timeout

    def _replace(self, worker: "_Worker", reason: str) -> None:
        """Put a new actor in the place of one that is lost."""
        allowed = self._options.replacements
        if self._replaced >= allowed:
            self.close()
            raise UserError(
                f"collection failed: {worker.name} {reason}, and {allowed} actors were replaced before it "
                "(data.collector.ray.replacements); all actors were ended"
            )
        self._replaced += 1
        lost, number = f"{worker.name} {reason}", self._replaced
        self._end(worker)
        owed = [request.weights for request in worker.requests]
        worker.generation += 1
        worker.restart = None
        worker.requests.clear()
        worker.abandoned = []
        worker.episodes.begin_again()
        self._begin(worker)
        try:
            self._meet(worker)
        except UserError as error:
            if not self._workers:  # that one was lost too, and one too many: all is said
                raise
            self.close()
            raise UserError(f"collection failed: {lost}, and none took its place: {error}; all were ended") from error
        tell(f"gipo: note: {lost}; replaced ({number} of {allowed})")
        for weights in owed:
            self._ask(worker, weights)

    def _end(self, worker: "_Worker") -> None:
        if worker.actor is not None and self._ray.is_initialized():
            self._ray.kill(worker.actor, no_restart=True)
        worker.actor = None

    def _seed_of(self, worker: "_Worker") -> int:
        return worker_seed(self._seed, worker.index, worker.generation)


class _Request(NamedTuple):
    """A part of a segment that an actor was asked for."""

    part: Any  # Ray's promise of it
    weights: Any  # that it is made with
    anew: bool  # whether all simulators begin new episodes first


class _Worker:
    """One place among the actors, whoever holds it."""

    def __init__(self, index: int, episodes: PartNumbers):
        self.index = index
        self.generation = 0  # how many held it before
        self.actor: Any = None
        self.hello: Any = None
        self.process = 0
        self.restart: int | None = None  # seed of the new episodes that its next request begins with
        self.requests: deque[_Request] = deque()
        self.abandoned: list[Any] = []  # parts that nobody waits for any more, and the actor may be at
        self.episodes = episodes

    @property
    def name(self) -> str:
        """What messages call this actor, with the number of its process."""
        return f"Ray actor {self.index} (process {self.process})"


class _Collecting:
    """What runs in an actor: collection in one process, with the weights that come with a request."""

    def __init__(self, what: Collection, seed: int):
        warnings.filterwarnings("ignore")
        torch.set_num_threads(1)
        self._policy = what.policy
        seed_generators(seed)
        self._rollouts = InProcessRollouts(replace(what, seed=seed))

    def hello(self) -> int:
        """The number of this process, once its simulators stand."""
        return os.getpid()

    def collect(self, weights: dict[str, Tensor], restart: int | None) -> TensorDict:
        """The next part of a segment, of new episodes where a seed to `restart` with is given."""
        self._policy.load_state_dict(weights)
        if restart is not None:
            seed_generators(restart)
            self._rollouts.restart(restart)
        return self._rollouts.collect()


def _reason(error: Exception) -> str:
    """The last line of what an actor raised, without the traceback that Ray puts before it."""
    lines = str(getattr(error, "cause", None) or error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
