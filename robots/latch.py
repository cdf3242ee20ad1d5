"""Who may move the robot, and the watchdog that takes it away: a stop stays until a person resets it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from robots.base import Robot
from robots.errors import RobotError

IDLE, ENGAGED, STOPPED = "idle", "engaged", "stopped"
STOP_SECONDS = 1.0  # a driver's own stop may take before nobody waits for it any more
OnStop = Callable[[str], None]


class Latch:
    """idle → engaged → stopped → (reset by a person) → idle. Commands pass only while engaged.

    Args:
        robot: whose `stop` is called, once per stop, from a thread of its own, because a hanging driver may hang
            there too.
        grace: seconds a stop waits for a command that is just being sent, so that none can follow it.
        on_stop: told of the first reason, and of a driver that fails to stop; must not block.
    """

    def __init__(self, robot: Robot, grace: float, on_stop: OnStop = lambda reason: None):
        self._robot, self._grace, self._on_stop = robot, grace, on_stop
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._told = threading.Event()  # the driver knows of the latest stop
        self._state = IDLE
        self._reason = ""

    @property
    def state(self) -> str:
        """`idle`, `engaged` or `stopped`."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it is stopped; empty when it is not."""
        return self._reason

    def engage(self) -> None:
        """Let commands pass.

        Raises:
            RobotError: when it is stopped; only `reset` undoes that.
        """
        with self._lock:
            self.check()
            self._state = ENGAGED

    def check(self) -> None:
        """Refuse to go on after a stop.

        Raises:
            RobotError: with its reason.
        """
        if self._state == STOPPED:
            raise RobotError(f"the robot is stopped ({self._reason}); a person must reset it first")

    def disengage(self) -> None:
        """The ordinary end of control; a stop stays a stop."""
        with self._lock:
            if self._state == ENGAGED:
                self._state = IDLE

    def stop(self, reason: str) -> None:
        """Latch, and tell the driver before this returns. Safe from any thread; the first reason is kept."""
        with self._lock:
            first = self._state != STOPPED
            if first:
                self._state, self._reason = STOPPED, reason
                self._told.clear()
        if not first:
            # Else an episode could end, and the next begin, before the thread that saw the reason tells the driver.
            self._told.wait(self._grace + STOP_SECONDS)
            return
        self._on_stop(reason)
        self._halt(reason)
        self._told.set()

    def rest(self, reason: str) -> None:
        """Stop the robot without latching: an episode is over and nothing was wrong."""
        self.disengage()
        self._halt(reason)

    def reset(self) -> None:
        """What only a person may decide, after looking: back to idle."""
        with self._lock:
            self._state, self._reason = IDLE, ""

    @contextmanager
    def permission(self) -> Iterator[None]:
        """Held while a command is sent.

        Raises:
            RobotError: when the robot is not engaged (any more).
        """
        with self._sending:
            if self._state != ENGAGED:
                raise RobotError(self._reason or "the robot is not engaged")
            yield

    def _halt(self, reason: str) -> None:
        held = self._sending.acquire(timeout=self._grace)
        try:
            thread = threading.Thread(target=self._call_stop, args=(reason,), name="stop", daemon=True)
            thread.start()
            thread.join(STOP_SECONDS)
        finally:
            if held:
                self._sending.release()

    def _call_stop(self, reason: str) -> None:
        try:
            self._robot.stop(reason)
        except Exception as error:  # a driver's own errors share no base class
            self._on_stop(f"the driver failed to stop: {type(error).__name__}: {error}")


class Watchdog:
    """Stops the robot when a section of the loop takes longer than it may, even if that section never returns.

    Args:
        latch: to stop.
        deadlines: section → seconds.
        poll: seconds between looks.
    """

    def __init__(self, latch: Latch, deadlines: Mapping[str, float], poll: float):
        self._latch, self._poll = latch, poll
        self._deadlines = {section: round(seconds * 1e9) for section, seconds in deadlines.items()}
        self._current: tuple[str, int] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def enter(self, section: str) -> None:
        """The loop begins `section`.

        Raises:
            RobotError: when the section before was over its deadline, or the robot is stopped.
        """
        now = time.monotonic_ns()
        self._check(now)
        self._current = (section, now)
        if self._latch.state == STOPPED:
            raise RobotError(self._latch.reason)

    def rest(self) -> None:
        """The loop is at rest: nothing to watch."""
        self._current = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._poll):
            self._check(time.monotonic_ns())

    def _check(self, now: int) -> None:
        current = self._current
        if current is None:
            return
        section, since = current
        allowed = self._deadlines[section]
        if now - since > allowed and self._current is current:
            taken = (now - since) / 1e6
            self._latch.stop(f"{section} takes {taken:.1f} ms so far, more than {allowed / 1e6:.1f} ms")
