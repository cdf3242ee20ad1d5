"""The life cycle of a session: which state may follow which, and what an end costs in exit codes.

`docs/robots.md` draws it as a table of states and events; a test runs every row of that table.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import FrameType

from gipo.common.errors import UserError

EXIT_FAULT, EXIT_SIGNAL = 2, 128  # the second is added to the signal's number, as shells do
# Ctrl-C, kill, a lost terminal, Ctrl-\ and Ctrl-Z: a process that is gone or suspended minds no robot.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP") if hasattr(signal, name)
)


class State(str, Enum):
    """What a session is doing, from its open log to its sealed one."""

    LOGGED = "logged"  # the log is open, and the driver connects
    CONNECTED = "connected"  # between episodes; nothing moves
    PREPARING = "preparing"  # homing, and a person who places the scene
    ENGAGED = "engaged"  # the policy commands the robot
    STOPPED = "stopped"  # a fault stopped the robot, and a person is asked
    CLOSING = "closing"  # stop, close, seal: from here there is no way back
    SEALED = "sealed"


_FOLLOWERS = {
    State.LOGGED: {State.CONNECTED, State.CLOSING},
    State.CONNECTED: {State.PREPARING, State.CLOSING},
    State.PREPARING: {State.ENGAGED, State.CONNECTED, State.STOPPED, State.CLOSING},
    State.ENGAGED: {State.CONNECTED, State.STOPPED, State.CLOSING},
    State.STOPPED: {State.CONNECTED, State.CLOSING},
    State.CLOSING: {State.SEALED},
    State.SEALED: set(),
}


class SessionOver(UserError):
    """The session is closing: whoever still works for it must not go on."""


class LifeCycle:
    """Where a session is, which signals it has heard, and why it cannot succeed. Safe from every thread."""

    def __init__(self) -> None:
        self.history = [State.LOGGED]
        self.signals: list[signal.Signals] = []
        self.faults: list[str] = []
        self.cause: BaseException | None = None  # of the first fault that came as an exception
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """What the session is doing now."""
        return self.history[-1]

    def enter(self, state: State) -> State:
        """Go to `state`; returns the state that was left.

        Raises:
            SessionOver: when it cannot follow, because another thread has closed the session.
        """
        with self._lock:
            left = self.history[-1]
            if state not in _FOLLOWERS[left]:
                raise SessionOver(f"the session is {left.value}, it cannot be {state.value} any more")
            self.history.append(state)
            return left

    def fault(self, reason: str, cause: BaseException | None = None) -> None:
        """Note why this session does not succeed; each reason is said once."""
        if reason and reason not in self.faults:
            self.faults.append(reason)
            self.cause = self.cause or cause

    def heard(self, number: int) -> None:
        """Note a signal. Called by a signal handler, so it takes no lock."""
        self.signals.append(signal.Signals(number))

    @property
    def ended_by(self) -> str:
        """Name of the signal that ends the session; empty when none does."""
        return self.signals[0].name if self.signals else ""

    @property
    def must_end(self) -> bool:
        """A signal ends everything at once, but for an episode, which ends in good order unless a second one comes."""
        return len(self.signals) >= (2 if self.state is State.ENGAGED else 1)

    @property
    def exit_code(self) -> int:
        """0 only when every episode ran, the robot stopped as told, and the log is whole."""
        if self.faults:
            return EXIT_FAULT
        return EXIT_SIGNAL + self.signals[0] if self.signals else 0


@dataclass(frozen=True)
class _Handler:
    """Tells a signal to `heard`."""

    heard: Callable[[int], None]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard(number)


def _be_terminable() -> None:
    """Let a process that a driver forks, such as a camera's, be ended by its `terminate`, as it expects."""
    if isinstance(signal.getsignal(signal.SIGTERM), _Handler):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_be_terminable)


@contextmanager
def signals(heard: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Every signal that would end the process is told to `heard` instead; in the main thread only, as Python allows.

    Yields what listens anew, for where a driver has blocked a signal or its library has put a handler of its own in
    place. `nohup` has the loss of the terminal ignored, and so it stays. SIGTTIN and SIGTTOU, by which a terminal
    suspends a process of the background that uses it, are ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    wanted = [each for each in SIGNALS if (each, signal.getsignal(each)) != (signal.SIGHUP, signal.SIG_IGN)]
    idle = [getattr(signal, name) for name in ("SIGTTIN", "SIGTTOU") if hasattr(signal, name)]
    before = {each: signal.getsignal(each) for each in (*wanted, *idle)}

    def listen() -> None:
        for each in wanted:
            signal.signal(each, _Handler(heard))
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)

    listen()
    for each in idle:
        signal.signal(each, signal.SIG_IGN)
    try:
        yield listen
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
