"""Who may move the robot, and the watchdog that takes it away: a stop stays until a person resets it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from gipo.common.errors import UserError
from robots.base import Robot
from robots.drivers.calls import Call

IDLE, ENGAGED, STOPPED = "idle", "engaged", "stopped"
STOP_SECONDS = 1.0  # a driver's own stop may take; one that takes longer has failed
OnStop = Callable[[str], None]


class Latch:
    """idle → engaged → stopped → (reset by a person) → idle. Commands pass only while engaged.

    Args:
        robot: whose `stop` is called, from a thread of its own, because a hanging driver may hang there too.
        grace: seconds a stop waits for a command that is just being sent; the driver of one that takes longer is told
            to stop then, and again once it is sent, as it may have arrived after the stop.
        on_stop: told of the first reason, and of a driver that fails to stop; must not block.
    """

    def __init__(self, robot: Robot, grace: float, on_stop: OnStop = lambda reason: None):
        self._robot, self._grace, self._on_stop = robot, grace, on_stop
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._calling = threading.Lock()
        self._told = threading.Event()  # the driver knows of the latest stop
        self._state = IDLE
        self._reason = ""
        self._resting = False  # the driver was told to stop, did, and was allowed nothing since
        self._overtaken = False  # the driver was last told to stop while a command was being sent
        self._call: Call | None = None
        self.failure = ""  # how the driver failed to stop since the last reset; empty when it did not

    @property
    def state(self) -> str:
        """Who may move the robot: nobody (`idle`, `stopped`), or the policy (`engaged`)."""
        return self._state

    @property
    def reason(self) -> str:
        """Why the robot is stopped; empty when it is not."""
        return self._reason

    def begin(self) -> None:
        """The robot is about to be prepared, which may move it.

        Raises:
            UserError: when it is stopped; only `reset` undoes that.
        """
        with self._lock:
            self.check()
            self._resting = False

    def engage(self) -> None:
        """Let commands pass to the robot.

        Raises:
            UserError: when it is stopped; only `reset` undoes that.
        """
        with self._lock:
            self.check()
            self._state, self._resting, self._overtaken = ENGAGED, False, False

    def check(self) -> None:
        """Refuse to go on after a stop.

        Raises:
            UserError: with its reason.
        """
        if self._state == STOPPED:
            raise UserError(f"the robot is stopped ({self._reason}); a person must reset it first")

    def disengage(self) -> None:
        """Let no further command pass, at the ordinary end of control; a stop stays a stop."""
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
        self._say(reason)
        self._halt(reason)
        self._told.set()

    def rest(self, reason: str) -> None:
        """Stop the robot without latching, as nothing was wrong with its episode; a driver that fails to is latched."""
        self.disengage()
        self._halt(reason)
        if not self._resting:
            self.stop(self.failure)

    def settle(self, reason: str) -> None:
        """Tell the driver once more, unless it has stopped and nothing could have moved it since."""
        if not self._resting:
            self._halt(reason)

    def repeat(self) -> None:
        """Tell a latched driver once more: what it was still doing may have undone its stop."""
        with self._calling:
            call = self._call
        if call is not None:  # what of it is still on its way counts for nothing either
            call.wait(STOP_SECONDS)
        self._resting = False
        self.settle(self._reason)

    def reset(self) -> None:
        """Undo a stop, which only a person may decide, after looking at the robot."""
        with self._lock:
            self._state, self._reason, self.failure = IDLE, "", ""

    @contextmanager
    def permission(self) -> Iterator[None]:
        """The right to send one command, held while it is sent. The robot stands still after it if it was stopped.

        Raises:
            UserError: when the robot is not engaged (any more).
        """
        try:
            with self._sending:
                if self._state != ENGAGED:
                    raise UserError(self._reason or "the robot is not engaged")
                yield
        finally:
            if self._overtaken:
                self.repeat()

    def _halt(self, reason: str) -> None:
        held = self._sending.acquire(timeout=self._grace)
        self._overtaken = not held
        try:
            with self._calling:  # a call runs before whoever began it knows it
                call = self._call
                if call is None or not call.running:  # else it hangs in an earlier stop, and would in this one
                    call = self._call = Call(self._robot.stop, reason)
            fault = call.wait(STOP_SECONDS)
        finally:
            if held:
                self._sending.release()
        self._resting = not fault
        if fault:
            self.failure = f"the driver failed to stop: {fault}"
            self._say(self.failure)

    def _say(self, reason: str) -> None:
        with suppress(Exception):  # whoever is told must not keep the driver from being told
            self._on_stop(reason)


class Watchdog:
    """Stops the robot when a section of the loop takes longer than it may, even if that section never returns.

    Args:
        latch: to stop.
        deadlines: section → seconds; others may take for ever.
        poll: seconds between looks.
        guards: section → asked at every look while it lasts; a reason stops the robot.
    """

    def __init__(
        self,
        latch: Latch,
        deadlines: Mapping[str, float],
        poll: float,
        guards: Mapping[str, Callable[[], str]] | None = None,
    ):
        self._latch, self._poll, self._guards = latch, poll, dict(guards or {})
        self._deadlines = {section: round(seconds * 1e9) for section, seconds in deadlines.items()}
        self._current: tuple[str, int] | None = None
        self.overdue = ""  # the section for which the robot is stopped, if for one
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def enter(self, section: str) -> None:
        """Note that the loop begins `section`, whose deadline runs from now on.

        Raises:
            UserError: when the section before was over its deadline, or the robot is stopped.
        """
        now = time.monotonic_ns()
        self._check(now)
        self._current = (section, now)
        if self._latch.state == STOPPED:
            raise UserError(self._latch.reason)
        self.overdue = ""

    def rest(self) -> None:
        """Note that the loop is at rest, and nothing is to be watched."""
        self._current = None

    def close(self) -> None:
        """End the watchdog's thread."""
        self._closed.set()
        self._thread.join(2 * STOP_SECONDS)  # a guard may hang, on a file of a network that is down

    def _run(self) -> None:
        while not self._closed.wait(self._poll):
            try:
                self._check(time.monotonic_ns())
                self._ask()
            except Exception as error:  # a watchdog that dies guards nothing
                self._latch.stop(f"the watchdog failed: {type(error).__name__}: {error}")

    def _ask(self) -> None:
        current = self._current
        guard = self._guards.get(current[0]) if current else None
        if guard is not None and (reason := guard()) and self._current is current:
            self._latch.stop(reason)

    def _check(self, now: int) -> None:
        current = self._current
        if current is None or current[0] not in self._deadlines:
            return
        section, since = current
        allowed = self._deadlines[section]
        if now - since > allowed and self._current is current:
            taken = (now - since) / 1e6
            if self._latch.state != STOPPED:
                self.overdue = section
            self._latch.stop(f"{section} takes {taken:.1f} ms so far, more than {allowed / 1e6:.1f} ms")
