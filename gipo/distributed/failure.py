"""Learners that end together: a signal to one saves and ends all, and one that is lost ends the others in seconds."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import distributed as dist

from gipo.common.errors import first_line
from gipo.common.signals import listener
from gipo.distributed import ranks

EXIT_LOST = 2
SILENCE = timedelta(seconds=15)  # after which a learner counts as lost
BEAT = 1.0  # seconds between two signs of life
GRACE = 5.0  # seconds for this learner to notice by itself


class EndTogether(Callback):
    """A signal to one rank ends all of them after the same iteration, saved; a rank that is lost ends the others."""

    def __init__(self) -> None:
        self._pulse: Pulse | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to say, and to hear from the others, that one lives."""
        if ranks.count() > 1:
            self._pulse = Pulse(lambda error: _end(trainer, error))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell every rank, before checkpoints look for it."""
        heard = listener.heard or 0
        # What this rank hears while it waits for the others is told after the next iteration.
        if told := max([heard, *ranks.others(heard)]):
            listener.heard = told
            trainer._signal_connector.received_sigterm = True  # which ends the run after this iteration

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """This rank ends, whatever the others do."""
        if self._pulse is not None:
            self._pulse.leave()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for the others to be done too."""
        if self._pulse is not None:
            self._pulse.finish()
            self._pulse = None


class Pulse:
    """Signs of life between the ranks, from a thread of their own in a process group of their own.

    A collective of the learners has to wait for a rank that is slow, because it evaluates, collects or saves, and so it
    waits as long for one that hangs. This thread is never slow: when it gets no answer from a rank for `SILENCE`, that
    rank's process is stopped or its machine gone; when the connection is closed, the rank is dead, which a learner
    itself would only notice at its next collective.

    Args:
        lost: called, from the thread, with the reason, unless this rank left within `GRACE` by itself.
    """

    def __init__(self, lost: Callable[[RuntimeError], None]):
        self._lost = lost
        self._group = dist.new_group(backend="gloo", timeout=SILENCE)
        self._done, self._left = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Go on until every rank has come here."""
        self._done.set()
        self._thread.join()
        if not self._left.is_set():
            dist.destroy_process_group(self._group)

    def leave(self) -> None:
        """Stop watching the other ranks, because this one ends."""
        self._left.set()
        self._thread.join(2 * BEAT)  # a thread in a collective does not survive the end of the interpreter

    def _beat(self) -> None:
        try:
            while not self._left.wait(BEAT):
                done = torch.tensor(int(self._done.is_set()))
                dist.all_reduce(done, group=self._group)
                if done == ranks.count():
                    return
        except RuntimeError as error:
            # Who is done has nothing to lose; who has noticed by itself ends in good order.
            if not self._done.is_set() and not self._left.wait(GRACE):
                self._lost(error)


def report_lost(error: RuntimeError) -> None:
    """Say why this learner ends."""
    reason = first_line(error)
    if ranks.count() == 1:
        message = f"the learners of this run could not meet: {reason}"
    else:
        message = f"another learner of this run died or hung, and this one ends too: {reason}"
    print(f"gipo: error: {message}", file=sys.stderr, flush=True)


def _end(trainer: Trainer, error: RuntimeError) -> None:
    """End this process, whose main thread may wait for a lost rank in a collective that nothing else ends.

    To its workers and Ray actors this is the death of the learner, which they do not outlive.
    """
    report_lost(error)
    sys.stdout.flush()
    launcher: Any = trainer.strategy.launcher
    if hasattr(launcher, "kill"):  # learners that this one started: a stopped one would stay
        launcher.kill(signal.SIGKILL)
    os._exit(EXIT_LOST)
