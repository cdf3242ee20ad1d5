"""Questions to the person at the terminal. Each ends as soon as the session does, and never waits for nobody."""

import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress

POLL_SECONDS = 0.05
SIGNAL_SECONDS = 0.3


def attended() -> bool:
    """Whether somebody can be asked: standard input is there, open, and a terminal whose keys reach this process.

    They do not reach one that a shell runs in the background (`&`), and reading them would suspend it.
    """
    try:
        return sys.stdin is not None and sys.stdin.isatty() and not _in_background(sys.stdin.fileno())
    except ValueError:  # closed
        return False


def ask(question: str, withdrawn: Callable[[], bool]) -> str | None:
    """The line that is typed after `question`; None when nobody answers, or when the question was `withdrawn` before.

    What was typed earlier is no answer: an Enter too many must not start a robot.
    """
    if not attended():
        return None
    _show(question)
    descriptor, typed = sys.stdin.fileno(), b""
    _forget_input(descriptor)
    while not withdrawn():
        if not select.select([descriptor], [], [], POLL_SECONDS)[0]:
            continue
        part = _read(descriptor)
        if not part:
            # Ctrl-D; or the terminal has gone, and the signal that says so is on its way: it is to be the reason.
            end = time.monotonic() + SIGNAL_SECONDS
            while not withdrawn() and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
            return None
        typed += part
        if b"\n" in typed:
            return typed.partition(b"\n")[0].decode(errors="replace").strip()
    return None


def ask_reset(reason: str, withdrawn: Callable[[], bool]) -> bool:
    """Ask the person at the terminal whether to go on after a stop; no terminal, no going on."""
    question = f"\nSTOPPED: {reason}\nLook at the robot. Type reset to go on, anything else to end: "
    return ask(question, withdrawn) == "reset"


def _in_background(descriptor: int) -> bool:
    try:
        return os.tcgetpgrp(descriptor) != os.getpgrp()
    except (OSError, AttributeError):  # a terminal that no shell has given to anyone; a system without such
        return False


def _show(question: str) -> None:
    # What a driver has closed shows nothing.
    there = [stream for stream in (sys.stdout, sys.stderr) if stream is not None and not stream.closed]
    shown = [stream for stream in there if stream.isatty()]
    for stream in (shown or there[::-1])[:1]:
        with suppress(OSError):
            print(question, end="", file=stream, flush=True)


def _read(descriptor: int) -> bytes:
    """What was typed; nothing at the end of input, and where the terminal has gone."""
    try:
        return os.read(descriptor, 1024)
    except OSError:
        return b""


def _forget_input(descriptor: int) -> None:
    with suppress(ImportError):  # where terminals are others
        import termios

        with suppress(termios.error):
            termios.tcflush(descriptor, termios.TCIFLUSH)
