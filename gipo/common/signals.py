"""Signals that end a run in good order: training hears them at the end of an iteration, all else ends at once."""

import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any

NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


POLL_SECONDS = 0.05


class Ended(SystemExit):
    """A signal ends this process, with the exit code that a shell gives to what the signal ended: 128 + its number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number
        self.told = False  # whether the user was told


def join(thread: threading.Thread, seconds: float) -> None:
    """Wait for a thread in pieces: a signal that comes as the main thread falls asleep is heard only when it wakes."""
    end = time.monotonic() + seconds
    while thread.is_alive() and (left := end - time.monotonic()) > 0:
        thread.join(min(left, POLL_SECONDS))


class Listener:
    """Hears signals while it is entered: Ctrl-C, SIGTERM and SIGHUP, or those of them that are given.

    Where work is `patient`, it looks at `heard` by itself, at a place where nothing is lost; elsewhere a signal raises
    `Ended`, and so does the same signal given again. What was ignored stays ignored, such as SIGHUP under nohup.
    """

    def __init__(self, numbers: Iterable[int] = tuple(NAMES)) -> None:
        self._numbers = tuple(numbers)
        self.heard: int | None = None
        self.patient = False
        self._before: dict[int, Any] = {}
        self._given: set[int] = set()

    def __enter__(self) -> "Listener":
        self.heard, self.patient = None, False
        self._given.clear()
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.patient = False
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def install(self) -> None:
        """Take the signals over, also from a library that took them over meanwhile."""
        for number in self._numbers:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_IGN, self._hear):
                continue
            try:
                signal.signal(number, self._hear)
            except ValueError:  # only the main thread may
                return
            self._before.setdefault(number, handler)

    def end(self) -> None:
        """Raise `Ended` where a signal was heard."""
        if self.heard is not None:
            raise Ended(self.heard)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again = number in self._given
        self._given.add(number)
        self.heard = self.heard or number
        if again or not self.patient:
            raise Ended(self.heard)


listener = Listener()  # a process has one handler of a signal


def name(number: int) -> str:
    """What a user calls a signal."""
    return NAMES[signal.Signals(number)]
