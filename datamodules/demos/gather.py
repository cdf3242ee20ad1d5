"""Attempts side by side, taken in the order of their numbers: how many processes there are changes no demonstration."""

import multiprocessing
import signal
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any

from datamodules.demos.attempts import Attempts
from datamodules.demos.demonstration import Demonstration
from gipo.common.errors import UserError
from gipo.common.faults import described

NOT_BEGUN = -1  # in place of the number of an attempt: of a process that could not make its task


def attempted(attempts: Attempts, processes: int) -> Generator[Demonstration, None, None]:
    """Attempt 0, 1, 2, … without end; leaving the iterator ends the processes.

    Raises:
        UserError: of an attempt that could not be made, whatever its script or its task raised; or a process was lost.
    """
    if processes == 1:
        with _told():
            env, maker = attempts.make()
        try:
            for number in count():
                with _told():
                    each = attempts.run(env, maker, number)
                yield each
        finally:
            env.close()
    with ExitStack() as stack:
        numbers: Iterator[int] = count()
        made: dict[int, Demonstration | UserError] = {}
        ends: list[Any] = [stack.enter_context(_worker(attempts)) for _ in range(processes)]
        for end in ends:
            end.send(next(numbers))
        for wanted in count():
            while wanted not in made:
                waiting: list[Any] = wait(ends)
                for end in waiting:
                    number, answer = _received(end)
                    if number == NOT_BEGUN:  # all would fail so, and nobody makes the attempt that this one was given
                        raise answer
                    made[number] = answer
                    if isinstance(answer, UserError):  # of whoever made it, this is the last
                        ends.remove(end)
                    else:
                        end.send(next(numbers))
            if isinstance(found := made.pop(wanted), UserError):
                raise found
            yield found


def _received(end: Any) -> Any:
    try:
        return end.recv()
    except (EOFError, OSError) as error:
        raise UserError("a process of demonstrations ended; if memory ran out, use fewer --processes") from error


@contextmanager
def _worker(attempts: Attempts) -> Iterator[Connection]:
    """A process that answers the number of an attempt by the attempt; it ends with the context, or with its parent."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, attempts), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.terminate()
        process.join()


def _serve(end: Connection, attempts: Attempts) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    with suppress(EOFError, OSError):  # the parent is gone
        for answer in _answers(end, attempts):
            end.send(answer)


def _answers(end: Connection, attempts: Attempts) -> Iterator[tuple[int, Demonstration | UserError]]:
    """What is to be sent: an attempt for every number that is received, and at last what ended them."""
    number = NOT_BEGUN
    try:
        with _told():
            env, maker = attempts.make()
        while True:
            number = end.recv()
            with _told():
                each = attempts.run(env, maker, number)
            yield number, each
    except UserError as error:
        yield number, error


@contextmanager
def _told() -> Iterator[None]:
    """Scripts and tasks are anybody's and raise anything: say what and where, however many processes there are."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"an attempt could not be made: {described(error)}") from error
