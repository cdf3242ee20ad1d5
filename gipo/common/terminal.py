"""What is said at a terminal: to one that may be closed, full or gone, and of an encoding that lacks a character."""

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO

_said: set[str] = set()


def tell(text: str) -> None:
    """Print lines on standard error, if anybody still reads it: what cannot be told changes no exit code."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # full, gone, or closed
        give_up(sys.stderr)


def say_once(line: str) -> None:
    """Print a line on standard error, the first time in a process that it is said."""
    if line not in _said:
        _said.add(line)
        tell(f"gipo: {line}")


def one_line(text: str) -> str:
    """`text` without line breaks and what drives a terminal, either of which a file, a name or an error may hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@contextlib.contextmanager
def any_character() -> Iterator[None]:
    """Have what a terminal of another encoding than UTF-8 cannot show printed as `?`, where Python would raise."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [(stream, stream.errors) for stream in streams if not stream.closed]
    for stream, _ in before:
        stream.reconfigure(errors="replace")
    try:
        yield
    finally:
        for stream, errors in before:
            with contextlib.suppress(OSError, ValueError):  # it writes what waits, to what may be full, gone or closed
                stream.reconfigure(errors=errors)


def reopen_closed() -> None:
    """Have what is printed to a stream that was closed at the start go nowhere.

    The next file that is opened would take its number, and get what libraries print: a checkpoint, or a robot's log.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None and not _is_open(number):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def reader_has_gone(stream: TextIO | None) -> bool:
    """Whether it is our output that nobody reads, and not, say, a robot's socket: a pipe's end, or a terminal's."""
    try:
        waiting = select.poll()
        waiting.register(stream.fileno(), 0)  # type: ignore[union-attr]
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in waiting.poll(0))
    except (OSError, ValueError, AttributeError):
        return False


def give_up(stream: TextIO) -> None:
    """Have what is still to be written to `stream` go nowhere: the interpreter would complain at its end (exit 120)."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
