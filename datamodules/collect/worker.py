"""What runs in a worker process: collection and evaluation, one at a time, as the learner asks for them."""

import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchrl.envs import EnvBase

from datamodules.collect.evaluation import Evaluation
from datamodules.collect.random_state import seed_generators
from datamodules.collect.rollouts import Collection, InProcessRollouts
from datamodules.collect.shared_segments import SegmentLayout, SharedSegments, layout_of
from datamodules.envs.simulation import close_or_say
from gipo.common.errors import UserError
from gipo.common.faults import described

Arrays = dict[str, np.ndarray]

SEGMENTS = 2  # the one that is being written, and the one before it, which is being read


class Failure(NamedTuple):
    """What was raised in a worker.

    Args:
        message: one line.
        trace: the traceback; empty where the message says it all.
    """

    message: str
    trace: str


class Collected(NamedTuple):
    """Which of the shared segments was written; the first time also how they lie, before the handle of their memory."""

    place: int
    layout: SegmentLayout | None


def settle_in() -> None:
    """What every process that collects does first: one thread, and the learner alone decides when it ends."""
    torch.set_num_threads(1)
    # A signal to the whole group must let the learner save first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def serve(what: Collection, connection: Connection, inherited: Sequence[Connection], steps: Tensor) -> None:
    """Do what comes through the connection until it is closed, or the process that made this one is gone.

    Args:
        what: to collect; its policy's weights are in memory that the learner writes to while nothing is asked for.
        connection: brings (number, command, arguments), takes (number, result).
        inherited: the learner's ends of connections, copied by the fork.
        steps: scalar in shared memory, to count steps of simulators in.
    """
    for other in inherited:
        other.close()
    gc.freeze()  # what the learner has made is not this process's to clear away
    settle_in()
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
    with suppress(EOFError, OSError):  # the learner has no more to ask for
        _answer(what, connection, steps)


def _answer(what: Collection, connection: Connection, steps: Tensor) -> None:
    with ExitStack() as simulators:
        worker: Worker | None = None
        while True:
            number, command, arguments = connection.recv()
            try:
                worker = worker or simulators.enter_context(closing(Worker(what, steps)))
                result: Any = getattr(worker, command)(*arguments)
            except UserError as error:
                result = Failure(str(error), "")
            except Exception as error:  # whatever a simulator raises: the learner says it
                result = Failure(described(error), traceback.format_exc())
            connection.send((number, result))
            if isinstance(result, Collected) and result.layout is not None:
                assert worker is not None
                assert worker.segments is not None
                send_handle(connection, worker.segments.descriptor, os.getppid())
                worker.segments.close()


class Worker:
    """Simulators of one process: for training and, once they are asked for, for evaluation.

    Args:
        what: to collect.
        steps: scalar in shared memory, to count steps in, so that others see that the process goes on.
    """

    def __init__(self, what: Collection, steps: Tensor):
        seed_generators(what.seed)
        what.policy.network.actor.register_forward_pre_hook(self._count)
        self._what, self._steps, self._collected = what, steps, 0
        self._rollouts = InProcessRollouts(what)
        self._evaluation_env: EnvBase | None = None
        self.segments: SharedSegments | None = None

    def collect(self, restart: int | None) -> Collected:
        """Write the next segment, of new episodes where a seed to `restart` with is given."""
        if restart is not None:
            seed_generators(restart)
            self._rollouts.restart(restart)
        segment, layout = self._rollouts.collect(), None
        if self.segments is None:
            layout = layout_of(segment, SEGMENTS)
            self.segments = SharedSegments(layout)
        place = self._collected % SEGMENTS
        self._collected += 1
        self.segments[place].update_(segment)
        return Collected(place, layout)

    def evaluate(self, num_envs: int, seed: int, how: Evaluation, waves: Sequence[range]) -> list[Arrays]:
        """Evaluation episodes, wave by wave, in as many simulators as the learner has."""
        if self._evaluation_env is None:
            self._evaluation_env = self._what.task.make_evaluation(num_envs, seed)
        found = how.run(self._evaluation_env, self._what.policy, waves)
        # As arrays: torch would send every tensor as shared memory of its own.
        return [{name: values.numpy() for name, values in wave.items()} for wave in found]

    def close(self) -> None:
        """Close all simulators, which may be processes."""
        self._rollouts.close()
        if self._evaluation_env is not None:
            close_or_say(self._evaluation_env.close, self._what.task.name)

    def _count(self, *_: Any) -> None:
        self._steps += 1


def _end_after(parent: int) -> None:
    """End this process once its parent is gone, also in the middle of a segment."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
