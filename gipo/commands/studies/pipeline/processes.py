"""Our commands as processes: what each says goes to a file, its progress bar to the terminal of who waits for it."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from tqdm import tqdm

from gipo.commands.studies.pipeline.ready import MODULES, Ready
from gipo.commands.studies.pipeline.versions import OtherVersion
from gipo.common.errors import UserError
from gipo.common.tables import write_table

TAIL = 15  # lines of a failed command that are repeated
PATIENCE = 30.0  # seconds a command may take to end in good order: after Ctrl-C, and again when it is told
TERMINAL = 2  # the descriptor of standard error
POLL_SECONDS = 0.5  # until a signal is heard that came just as the main thread fell asleep
GIVEN_UP = 3  # failures of runs, when none was made
SOONEST = 0.5  # seconds that a command takes at the least
BAR_SECONDS = "10"  # between two states of a progress bar in a file, where each is kept

Result = TypeVar("Result")


class Endable(Protocol):
    """What runs processes, and can end them."""

    def end(self, patience: float) -> None:
        """End all processes, after `patience` seconds in which they may end by themselves."""


class Commands:
    """Commands that run side by side. They end together: none begins, and none goes on, once `end` is called.

    As a context it ends what was prepared and not needed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ready: list[tuple[str, bool, Ready]] = []
        self._ended = False

    def prepare(self, command: str, bars: bool = False) -> None:
        """Have a process import what `run` with this command and these bars will need, while a core is idle."""
        with self._lock:
            if not self._ended:
                self._ready.append((command, bars, Ready(command, _environment(bars))))

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            unused, self._ready = self._ready, []
        for _, _, ready in unused:
            ready.dismiss()

    def run(self, command: str, args: Sequence[str], output: Path, lock: int, bars: bool = False) -> None:
        """Run one of our commands with this interpreter, to its end.

        Args:
            command: one of MODULES.
            args: its arguments.
            output: file for what it says.
            lock: a descriptor that it inherits.
            bars: leave its standard error, which is where progress and errors go, on the terminal.

        Raises:
            UserError: when it fails, with the end of what it said; or the study has ended.
        """
        shown = f"{command} {shlex.join(args)}"
        with open(output, "w") as file:
            print(f"$ {shown}", file=file, flush=True)
            with self._lock:
                self.refuse_when_ended()
                process = self._begin(command, args, file.fileno(), lock, bars)
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
            if code:
                self.refuse_when_ended()
        if code:
            raise UserError(f"`{shown}` {how_it_ended(code)}; {output} ends with:\n{tail(output)}")

    def refuse_when_ended(self) -> None:
        """Raise a UserError once `end` was called."""
        if self._ended:
            raise UserError("the study has ended")

    def end(self, patience: float = 0.0) -> None:
        """End the commands that run, and let none begin; who calls it first says how.

        Args:
            patience: seconds they may take to end by themselves, where they have heard of it: Ctrl-C at a terminal
                reaches them all.
        """
        with self._lock:
            if self._ended:
                return
            self._ended = True
            running = list(self._running)
        try:
            _wait(running, patience)
        finally:  # also where a person is less patient
            for process in running:
                process.terminate()  # which does nothing to one that has ended
            _wait(running, PATIENCE)
            for process in running:
                process.kill()

    def _begin(
        self, command: str, args: Sequence[str], output: int, lock: int, bars: bool
    ) -> "subprocess.Popen[bytes]":
        progress = TERMINAL if bars else output
        for each in [one for one in self._ready if one[:2] == (command, bars)]:
            self._ready.remove(each)
            if each[2].order(args, output, progress, lock):
                return each[2].process
        return subprocess.Popen(
            [sys.executable, "-m", MODULES[command][0], *args], stdin=subprocess.DEVNULL, stdout=output,
            stderr=progress, pass_fds=[lock], env=_environment(bars),
        )  # fmt: skip


@contextmanager
def side_by_side(commands: Endable, workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool for functions that run commands; an error or Ctrl-C within ends all commands, whoever runs them."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            commands.end(PATIENCE if isinstance(error, KeyboardInterrupt) else 0.0)
            raise


@contextmanager
def under_a_bar(commands: Endable, workers: int, total: int, title: str) -> Iterator[Callable[..., "Future[Any]"]]:
    """What submits a function and its arguments to a pool of `side_by_side`; a bar counts those that are done."""
    with tqdm(total=total, desc=title, unit="run", smoothing=0) as bar, side_by_side(commands, workers) as pool:

        def counted(work: Callable[..., Any], *arguments: Any) -> Any:
            began = time.monotonic()
            found = work(*arguments)
            advance(bar, time.monotonic() - began)
            return found

        yield lambda work, *arguments: pool.submit(counted, work, *arguments)


def advance(bar: tqdm, seconds: float) -> None:
    """One more is done; what no command makes so soon was there before, and the others tell how much time is left."""
    bar.initial += seconds < SOONEST
    bar.update()


def in_order(futures: Sequence["Future[Result]"]) -> Iterator[Result]:
    """The results in the order of `futures`, each as soon as those before it are there; the first error at once."""
    pending = set(futures)
    for each in futures:
        while not each.done():
            done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
            for one in done:
                one.result()
        yield each.result()


def all_made(
    futures: Sequence["Future[Result]"], table: Path | None = None, before: Sequence[Result] = ()
) -> list[Result]:
    """The results of runs that do not depend on each other, in order; one that fails does not keep others from theirs.

    Args:
        futures: of the runs.
        table: where the results, a row each, are written if some fail.
        before: results that stand there before them.

    Raises:
        UserError: the first failure, when all others are made; or as `made` does.
    """
    results, failed = made(futures)
    if not failed:
        return results
    where = ""
    if table is not None and results:
        write_table(cast(list[dict[str, object]], [*before, *results]), table)
        where = f" and stand in {table}"
    raise UserError(f"{len(failed)} of {len(futures)} runs failed, all others are made{where}; the first: {failed[0]}")


def made(futures: Sequence["Future[Result]"]) -> tuple[list[Result], list[UserError]]:
    """The results of those runs that are made, in order, and why the others failed.

    Raises:
        OtherVersion: at once, as no further run would go with those that are there.
        UserError: the third failure, at once, where nothing was made before it: what was given to all is wrong then.
    """
    results, failed = dict[Future[Result], Result](), list[UserError]()
    for one in _as_they_end(futures):
        error = one.exception()
        if isinstance(error, OtherVersion) or not isinstance(error, UserError):
            results[one] = one.result()  # which raises what is not one run's
            continue
        failed.append(error)
        if not results and len(failed) == GIVEN_UP:
            raise error
        tqdm.write(f"gipo: a run failed, the others go on: {error}", file=sys.stderr)
    return [results[one] for one in futures if one in results], failed


def _as_they_end(futures: Iterable["Future[Result]"]) -> Iterator["Future[Result]"]:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, POLL_SECONDS, FIRST_COMPLETED)
        yield from done


def _environment(bars: bool) -> dict[str, str]:
    """The environment of a command: every state of a bar that is not seen stays in a file, so there are few."""
    return dict(os.environ) if bars else {"TQDM_MININTERVAL": BAR_SECONDS, **os.environ}


def _wait(processes: Sequence["subprocess.Popen[bytes]"], seconds: float) -> None:
    """Return when all have ended, or the time is over."""
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return


def how_it_ended(code: int) -> str:
    """`ended with exit code 2`, or by which signal where the code of a process is negative."""
    if code >= 0:
        return f"ended with exit code {code}"
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    memory = ", as a system without free memory ends what takes most; fewer --processes take less"
    return f"was ended by {name}{memory * (number == signal.SIGKILL)}"


def tail(output: Path) -> str:
    """The last lines, each progress bar in its last state."""
    lines = [line.rpartition("\r")[2] for line in output.read_bytes().decode(errors="replace").split("\n")]
    return "\n".join(lines[-TAIL:]).rstrip("\n")
