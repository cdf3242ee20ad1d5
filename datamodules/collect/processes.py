"""Collection in worker processes, in lockstep with the learner."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from tensordict import TensorDict

from datamodules.collect.episode_numbers import PartNumbers, RunNumbers
from datamodules.collect.evaluation import Evaluation, EvaluationWorkers
from datamodules.collect.random_state import worker_seed
from datamodules.collect.rollouts import Collection, Rollouts
from datamodules.collect.worker_process import WorkerProcess
from datamodules.options import CollectorOptions, EvaluationOptions
from gipo.common.errors import UserError
from gipo.policies import Policy

PATIENCE = 20.0  # seconds that a worker may take to finish what it does, at the end of a run


class WorkerRollouts(Rollouts, EvaluationWorkers):
    """Worker processes, each with `num_envs` simulators, of which every segment joins a part.

    With `overlap` they collect while the learner learns: a segment is collected by the weights of the last `update`
    before its `begin`, however fast anybody is, so that what is collected depends on seeds alone, as in one process.
    One worker without `overlap` collects bit for bit what `InProcessRollouts` does.

    Weights and segments are in shared memory: weights are written while nobody acts, segments to one of two places in
    turn.

    Args:
        what: to collect.
        options: how many workers, whether they collect beside the learner, and how long they may make no step.
        evaluation: the simulators that evaluation has.
    """

    def __init__(
        self,
        what: Collection,
        options: CollectorOptions,
        evaluation: EvaluationOptions = EvaluationOptions(),  # noqa: B008 - read only
    ):
        count = options.processes()
        self._overlap, self._evaluation, self._run = options.overlap, evaluation, RunNumbers(what.first_episode)
        self._acting = copy.deepcopy(what.policy).cpu().requires_grad_(False).share_memory()
        part = replace(what, policy=self._acting, frames=what.frames // count, first_episode=0)
        self._workers: list[WorkerProcess] = []
        for index in range(count):
            mine = replace(part, seed=worker_seed(what.seed, index))
            self._workers.append(WorkerProcess(f"worker {index}", mine, options.worker_timeout, self._workers))
        self._numbers = [PartNumbers(self._run) for _ in range(count)]
        self._restart: int | None = None  # the seed of the new episodes that the next segment begins with
        self._begun = False
        self._whole: TensorDict | None = None  # the segment that was begun, once it is there
        self._failure: UserError | None = None  # of its collection

    @property
    def next_episode(self) -> int:
        """The number that the next new episode gets."""
        return self._run.next

    def begin(self) -> None:
        """Start on the next segment, where that is done beside the learner."""
        if self._overlap:
            self._begin()

    def collect(self) -> TensorDict:
        """The next segment [M], part by part in the order of the workers.

        Raises:
            UserError: when a worker failed; all workers are gone then.
        """
        self._begin()
        found = self._received()
        self._begun, self._whole = False, None
        return found

    def ahead(self) -> TensorDict | None:
        """The segment that `begin` started on; None where there is none, or where `collect` says why it failed."""
        if not self._begun:
            return None
        try:
            return self._received()
        except UserError:
            return None

    def update(self, policy: Policy) -> None:
        """Act with these weights, once the segment that was begun is there.

        Raises:
            UserError: as `collect`.
        """
        if self._begun:
            self._received()
        self._acting.load_state_dict(policy.state_dict())

    def restart(self, seed: int) -> bool:
        """The next segment that is begun is of new episodes; one that was begun before belongs to the running ones."""
        self._restart = seed
        return True

    def __len__(self) -> int:
        return len(self._workers)

    def begin_evaluation(self, policy: Policy, how: Evaluation, shares: Sequence[Sequence[range]]) -> None:
        """Have each worker run evaluation episodes, the waves of its share, once the segment that was begun is there.

        Raises:
            UserError: as `collect`.
        """
        self.update(policy)
        with self._all_or_none():
            for worker, waves in zip(self._workers, shares, strict=True):
                worker.ask("evaluate", self._evaluation.num_envs, self._evaluation.seed, how, waves)

    def finish_evaluation(self) -> list[list[TensorDict]]:
        """The episodes [N] of every wave of each share.

        Raises:
            UserError: as `collect`.
        """
        with self._all_or_none():
            found = [worker.answer() for worker in self._workers]
        return [[_as_tensors(wave) for wave in share] for share in found]

    def close(self) -> None:
        """End the workers, once they have nothing to do; by force if that takes long. Safe to call twice."""
        self._end(PATIENCE)

    def _begin(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._begun:
            return
        seed, self._restart = self._restart, None
        with self._all_or_none():
            for index, worker in enumerate(self._workers):
                worker.ask("collect", None if seed is None else worker_seed(seed, index))
        self._begun = True

    def _received(self) -> TensorDict:
        if self._failure is not None:
            raise self._failure
        if self._whole is None:
            with self._all_or_none():
                parts = [worker.segment() for worker in self._workers]
            numbered = [numbers(part) for numbers, part in zip(self._numbers, parts, strict=True)]
            self._whole = numbered[0] if len(numbered) == 1 else torch.cat(numbered)
        return self._whole

    def _end(self, patience: float) -> None:
        for worker in self._workers:
            worker.dismiss()
        for worker in self._workers:
            worker.end(patience)

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """End all workers where one of them fails."""
        try:
            yield
        except UserError as error:
            self._end(patience=0.0)
            self._failure = UserError(f"{error}; all workers were ended")
            raise self._failure from error.__cause__


def _as_tensors(wave: dict[str, np.ndarray]) -> TensorDict:
    return TensorDict(
        {name: torch.from_numpy(values) for name, values in wave.items()}, batch_size=[len(wave["length"])]
    )
