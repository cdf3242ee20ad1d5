"""Collection in worker processes that never wait for the learner; every wait for them is bounded."""

import contextlib
import copy
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import MultiAsyncCollector
from torchrl.envs import EnvBase

from datamodules.collect.actor import ReceivingActor
from datamodules.collect.episode_numbers import EpisodeNumbers
from datamodules.collect.rollouts import ENDLESS, Collection, Rollouts, transitions
from datamodules.collect.weight_transfer import BoundedWeightSync, count_down
from datamodules.collect.worker import settle_in
from datamodules.envs.simulation import Simulation
from datamodules.options import CollectorOptions
from gipo.common.errors import UserError
from gipo.policies import Policy


class AsynchronousRollouts(Rollouts):
    """Several worker processes, each with `num_envs` simulators and a copy of the policy, that collect all the time.

    A worker that dies, or sends nothing for `worker_timeout` seconds, ends the run with an error that names it.

    Args:
        what: to collect; a segment is of one worker.
        options: how many workers, and how long they may be silent.
    """

    def __init__(self, what: Collection, options: CollectorOptions):
        self._timeout = options.worker_timeout
        self._actor = ReceivingActor(copy.deepcopy(what.policy).cpu(), what.store_params)
        self._collector = MultiAsyncCollector(
            [partial(_worker_env, what.task, what.num_envs)] * options.processes(),
            self._actor,
            frames_per_batch=what.frames,
            weight_sync_schemes={"policy": BoundedWeightSync(self._timeout)},
            **ENDLESS,
        )
        self._processes = list(self._collector.procs)
        self._collector.set_seed(what.seed)
        self._iterator: Iterator[TensorDictBase] = iter(self._collector)
        self._episodes = EpisodeNumbers(what.first_episode, contiguous=False)
        self._silences = {process.pid: _Silence(time.monotonic()) for process in self._processes}

    def collect(self) -> TensorDict:
        """The next segment of transitions [M].

        Raises:
            UserError: when a worker died or is stuck; all workers are gone then.
        """
        with self._watched():
            segment = next(self._iterator)
            self._refuse_silence(set(segment["process"].flatten().tolist()))
        return transitions(segment, self._episodes)

    def update(self, policy: Policy) -> None:
        """Send the weights to every worker.

        Raises:
            UserError: as `collect`.
        """
        self._actor.load(policy)
        with self._watched():
            self._collector.update_policy_weights_()

    def restart(self, seed: int) -> bool:
        """Workers run on: their episodes cannot be replayed, so there is nothing to begin again."""
        return False

    @property
    def next_episode(self) -> int:
        """The number that the next new episode gets."""
        return self._episodes.next

    def close(self) -> None:
        """End the workers, by force if they do not answer."""
        try:
            self._collector.shutdown(timeout=5, raise_on_error=False)
        finally:
            self._kill()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Bound the time that TorchRL waits for workers, and turn whatever it raises into one clear error."""
        stuck, done = threading.Event(), threading.Event()
        give_up = partial(self._give_up, stuck)
        watchdog = threading.Thread(target=count_down, args=(self._timeout, done, give_up), daemon=True)
        watchdog.start()
        try:
            yield
        except (RuntimeError, ValueError, OSError, EOFError) as error:  # what TorchRL raises where workers die
            self._kill()
            silent = f"no worker answered for {self._timeout:g} s (data.collector.worker_timeout)"
            reason = silent if stuck.is_set() else f"a worker failed: {error}"
            raise UserError(f"collection failed: {reason}; all workers were ended") from error
        finally:
            done.set()

    def _refuse_silence(self, heard: set[int]) -> None:
        """Notice a stuck worker behind others that go on: segments come first in, first out, so each has its turn."""
        for pid, silence in self._silences.items():
            if pid in heard:
                self._silences[pid] = _Silence(time.monotonic())
                continue
            silence.segments += 1
            if silence.segments > 2 * len(self._processes) and time.monotonic() - silence.since > self._timeout:
                raise RuntimeError(f"process {pid} sent nothing for {self._timeout:g} s while others did")

    def _give_up(self, stuck: threading.Event) -> None:
        stuck.set()
        self._kill()

    def _kill(self) -> None:
        """SIGKILL whoever still lives: it ends a stopped process too, and TorchRL notices within a second.

        By number, because TorchRL may have closed its handle on a worker that has not ended yet.
        """
        for pid in self._silences:
            # A child that nobody has waited for keeps its number, so no stranger can be hit.
            with contextlib.suppress(ChildProcessError):
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    os.kill(pid, signal.SIGKILL)


@dataclass
class _Silence:
    """Since when (monotonic seconds), and for how many segments of other workers, a worker has sent nothing."""

    since: float
    segments: int = 0


def _worker_env(task: Simulation, num_envs: int) -> EnvBase:
    settle_in()
    return task.make(num_envs, seed=0)  # the collector seeds each worker differently
