"""An operator in a thread of its own: what it said last is always there, and nobody waits for it."""

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from robots.base import Observation
from robots.people.operator import Operator, Said

POLLS = 4  # of the operator, in a control period
IDLE_SECONDS = 0.02  # between two looks whether an episode has begun
REST_SECONDS = 1.0  # an operator may take to give back what others need


@dataclass(frozen=True)
class Reply:
    """What an operator said last.

    Args:
        engaged: the person has the robot.
        action: [D] what they command; None for nothing.
        time_ns: `time.monotonic_ns()` when it was said.
        fault: why there will be no other; empty while the operator lives.
        to: the observation that it answers.
    """

    engaged: bool = False
    action: np.ndarray | None = None
    time_ns: int = 0
    fault: str = ""
    to: Observation | None = None


class Watched:
    """Asks an operator again and again while an episode runs.

    Args:
        operator: asked in one thread.
        period: of the control loop, seconds.
        patience: seconds after which an operator that does not answer counts as gone.
        waits: `ask` waits for the answer to its own observation, up to half the patience: for a simulated robot whose
            time stands still meanwhile. Otherwise it never waits.
    """

    def __init__(self, operator: Operator, period: float, patience: float, waits: bool = False):
        self.patience = patience
        self.waits = waits
        self._operator, self._pause = operator, period / POLLS
        self._changed = threading.Condition()
        self._seen: Observation | None = None
        self._answer = Reply()
        self._words: deque[Said] = deque()
        self._wanted = self._running = self._closed = False
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Begin to ask, with nothing said yet; returns when the operator is ready, or after the patience."""
        with self._changed:
            self._seen, self._answer = None, Reply(time_ns=time.monotonic_ns())
            self._words.clear()
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._running or bool(self._answer.fault), max(self.patience, REST_SECONDS))
            self._answer = replace(self._answer, time_ns=time.monotonic_ns())

    def rest(self) -> None:
        """Ask no more; returns when the operator has given back what others need, or has had its time."""
        with self._changed:
            self._wanted = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, REST_SECONDS)

    def ask(self, observation: Observation) -> Reply:
        """Show the operator an observation; what it said last."""
        with self._changed:
            self._seen = observation
            if self.waits:
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._answer.to is observation or bool(self._answer.fault), self.patience / 2
                )
            return self._answer

    def words(self) -> list[Said]:
        """What the person has said since the last call, in order."""
        found = []
        with suppress(IndexError):
            while True:
                found.append(self._words.popleft())
        return found

    def silence(self) -> float:
        """Seconds since the operator answered; 0 where it is only asked when somebody waits for it."""
        return 0.0 if self.waits or not self._wanted else (time.monotonic_ns() - self._answer.time_ns) / 1e9

    def close(self) -> None:
        """End the thread, and release the device."""
        with self._changed:
            self._wanted, self._closed = False, True
            self._changed.notify_all()
        self._thread.join(REST_SECONDS)
        self._operator.close()

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or self._closed, IDLE_SECONDS)
            if self._wanted and not self._answer.fault:
                self._episode()
            elif self._wanted:
                time.sleep(IDLE_SECONDS)

    def _episode(self) -> None:
        try:
            self._operator.begin()
            self._note(running=True)
            while self._wanted:
                self._poll()
        except BaseException as error:  # whatever a device's library raises
            self._dead(f"{type(error).__name__}: {error}")
        finally:
            try:
                self._operator.rest()
            except BaseException as error:
                self._dead(f"{type(error).__name__}: {error}")
            self._note(running=False)

    def _poll(self) -> None:
        with self._changed:
            if self.waits:
                self._changed.wait_for(lambda: self._seen is not self._answer.to or not self._wanted, IDLE_SECONDS)
            else:
                self._changed.wait_for(lambda: not self._wanted, self._pause)
            seen = self._seen
        if seen is None or (self.waits and seen is self._answer.to):
            if not self.waits:  # nothing is seen yet, and it lives
                self._answer = replace(self._answer, time_ns=time.monotonic_ns())
            return
        wanted = self._operator.action(seen)
        action = None if wanted is None else np.array(wanted)  # it may fill the same memory again
        engaged = bool(self._operator.engaged())
        while (word := self._operator.said()) is not None:
            self._words.append(word)
        with self._changed:
            self._answer = Reply(engaged, action, time.monotonic_ns(), to=seen)
            self._changed.notify_all()

    def _dead(self, fault: str) -> None:
        with self._changed:
            self._answer = replace(self._answer, fault=fault or "it ended", action=None)
            self._changed.notify_all()

    def _note(self, running: bool) -> None:
        with self._changed:
            self._running = running
            self._changed.notify_all()
