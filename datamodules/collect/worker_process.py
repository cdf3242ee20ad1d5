"""The learner's handle on a worker process: whatever happens to it, an answer or one clear error, in bounded time."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.reduction import recv_handle
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch.multiprocessing import get_context

from datamodules.collect.rollouts import Collection
from datamodules.collect.shared_segments import SharedSegments
from datamodules.collect.weight_transfer import TICK
from datamodules.collect.worker import Collected, Failure, serve
from gipo.common.errors import UserError

START = 120.0  # seconds that simulators may take to be made or to begin anew, where `worker_timeout` is less
DYING = 5.0  # seconds from the end of a connection to that of its process
STOPPED = 15  # ticks in a row in which a worker is stopped and the learner is not
# As torch's DataLoader has it: a script needs no `__main__` guard, and what is loaded is loaded once.
CONTEXT: Any = get_context("fork" if sys.platform == "linux" else "spawn")


class WorkerProcess:
    """A worker that collects and evaluates by the policy in `what`, whose weights are in shared memory.

    Args:
        name: what messages call it.
        what: to collect.
        timeout: seconds without a step of its simulators after which it counts as hung.
        others: workers that there are already.
    """

    def __init__(self, name: str, what: Collection, timeout: float, others: "list[WorkerProcess]"):
        self._name, self._timeout, self._asked = name, timeout, 0
        self._makes = True  # whether what it was asked for may make simulators, or begin all of them anew
        self._steps = torch.zeros((), dtype=torch.int64).share_memory_()
        self._segments: SharedSegments | None = None
        self._connection, theirs = CONTEXT.Pipe()
        inherited = [other._connection for other in others] + [self._connection]
        # What is spawned inherits nothing.
        inherited = inherited if CONTEXT.get_start_method() == "fork" else []
        # No daemon, which could have no processes of its own, as some simulators are.
        self._process = CONTEXT.Process(target=serve, args=(what, theirs, inherited, self._steps))
        self._process.start()
        theirs.close()
        self._at_exit = Finalize(self, self._process.kill, exitpriority=1)  # before Python waits for it

    @property
    def pid(self) -> int:
        """The number of the process."""
        number: int = self._process.pid
        return number

    def ask(self, command: str, *arguments: Any) -> None:
        """Ask for a method of `datamodules.collect.worker.Worker`, whose result `answer` gives.

        Raises:
            UserError: it is dead.
        """
        self._asked += 1
        self._makes = command == "evaluate" or arguments != (None,)
        with self._connected():
            self._connection.send((self._asked, command, arguments))

    def answer(self) -> Any:
        """What the method returned that it was asked for last.

        Raises:
            UserError: it died, was stopped or hangs; or saying what it raised.
        """
        number, result = 0, None
        with self._connected():
            while number != self._asked:  # an answer that nobody waited for
                self._wait()
                number, result = self._connection.recv()
            if isinstance(result, Collected) and result.layout is not None:
                self._segments = SharedSegments(result.layout, recv_handle(self._connection))
                self._segments.close()
        if isinstance(result, Failure):
            where = f"collection failed: {self._name}: " if result.trace else ""
            raise UserError(f"{where}{result.message}") from RuntimeError(result.trace)
        return result

    def segment(self) -> TensorDict:
        """The segment [M] that it was asked to collect, in shared memory, where it stays until the next but one."""
        collected: Collected = self.answer()
        assert self._segments is not None
        return self._segments[collected.place]

    def dismiss(self) -> None:
        """Close the connection: it ends as soon as it has nothing to do."""
        self._connection.close()

    def end(self, patience: float) -> None:
        """Wait so many seconds for its end, and then send SIGKILL, which ends a stopped process too."""
        self.dismiss()
        if self._at_exit.still_active():
            self._process.join(patience)
            self._at_exit()
            self._process.join()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn a broken connection into an error that says how the process ended."""
        try:
            yield
        except (EOFError, OSError) as error:
            self._process.join(DYING)
            code = self._process.exitcode
            how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"
            raise UserError(f"collection failed: {self._name} (process {self.pid}) ended {how}") from error

    def _wait(self) -> None:
        """Wait for an answer, in ticks, of which a while that the learner is stopped too (Ctrl-Z) is but one."""
        silent, stopped, seen = 0.0, 0, -1
        while not self._connection.poll(TICK):
            steps = int(self._steps)
            silent, seen = (silent + TICK if steps == seen else 0.0), steps
            limit = max(self._timeout, START) if self._makes or not steps else self._timeout
            stopped = stopped + 1 if _is_stopped(self.pid) else 0
            if silent >= limit or stopped >= STOPPED:
                what = "was stopped" if stopped else f"made no step for {limit:g} s (data.collector.worker_timeout)"
                raise UserError(f"collection failed: {self._name} (process {self.pid}) {what}")


def _is_stopped(pid: int) -> bool:
    """Whether the system, where it says such things, has a process stopped by a signal."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    return False
