"""Collection in worker processes, every wait of which is bounded."""

import contextlib
import copy
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.collectors import MultiAsyncCollector, MultiSyncCollector
from torchrl.envs import EnvBase

from datamodules.collect.actor import ReceivingActor
from datamodules.collect.rollouts import EpisodeNumbers, Rollouts, transitions
from datamodules.collect.weight_transfer import BoundedWeightSync, count_down
from datamodules.envs.simulation import Simulation
from gipo.common.errors import UserError
from gipo.policies import Policy


class WorkerRollouts(Rollouts):
    """Several worker processes, each with `num_envs` simulators and its own copy of the policy.

    A worker that dies, or sends nothing for `timeout` seconds, ends the run with an error that names it.

    Args:
        task: what to simulate.
        num_envs: simulators per worker.
        frames: transitions per chunk; a chunk joins all workers, or is one worker's when asynchronous.
        policy: acts, as a copy.
        store_params: keep the behaviour policy's distribution parameters.
        seed: of goals and sampling noise.
        first_episode: number of the first episode.
        workers: number of processes.
        asynchronous: workers go on collecting while the learner learns.
        timeout: seconds without a chunk after which the workers count as stuck.
    """

    def __init__(
        self,
        task: Simulation,
        num_envs: int,
        frames: int,
        policy: Policy,
        store_params: bool,
        seed: int,
        first_episode: int = 0,
        workers: int = 2,
        asynchronous: bool = False,
        timeout: float = 30.0,
    ):
        self._timeout = timeout
        self._actor = ReceivingActor(copy.deepcopy(policy).cpu(), store_params)
        options = {} if asynchronous else {"cat_results": 0, "use_buffers": True}
        self._collector = (MultiAsyncCollector if asynchronous else MultiSyncCollector)(
            [partial(_worker_env, task, num_envs)] * workers,
            self._actor,
            frames_per_batch=frames,
            total_frames=-1,
            trust_policy=True,
            auto_register_policy_transforms=False,
            weight_sync_schemes={"policy": BoundedWeightSync(timeout)},
            **options,
        )
        self._processes = list(self._collector.procs)
        self._collector.set_seed(seed)
        self._iterator: Iterator[TensorDictBase] = iter(self._collector)
        self._episodes = EpisodeNumbers(first_episode, contiguous=False)
        self._silences = {process.pid: _Silence(time.monotonic()) for process in self._processes}

    def collect(self) -> TensorDict:
        """The next chunk [M].

        Raises:
            UserError: when a worker died or is stuck; all workers are gone then.
        """
        with self._watched():
            chunk = next(self._iterator)
            self._refuse_silence(set(chunk["process"].flatten().tolist()))
        return transitions(chunk, self._episodes)

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
        """Notice a stuck worker behind others that go on: chunks come first in, first out, so each has its turn."""
        for pid, silence in self._silences.items():
            if pid in heard:
                self._silences[pid] = _Silence(time.monotonic())
                continue
            silence.chunks += 1
            if silence.chunks > 2 * len(self._processes) and time.monotonic() - silence.since > self._timeout:
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
    """Since when (monotonic seconds), and for how many chunks of other workers, a worker has sent nothing."""

    since: float
    chunks: int = 0


def _worker_env(task: Simulation, num_envs: int) -> EnvBase:
    torch.set_num_threads(1)
    # The learner ends its workers: a signal to the whole group must let it save first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return task.make(num_envs, seed=0)  # the collector seeds each worker differently
