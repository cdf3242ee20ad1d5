"""An operator in a thread of its own: what it said last is always there, and nobody waits for it."""

import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gipo.common.errors import UserError
from gipo.common.faults import line_of
from robots.base import Observation
from robots.people.operator import Operator, Said

POLLS = 4  # of the operator, in a control period
IDLE_SECONDS = 0.02  # between two looks whether an episode has begun
REST_SECONDS = 1.0  # an operator may take to give back what others need
MAX_WORDS = 1000  # that a person says in a quarter of a period: an operator that gives more never gives None


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
        self._episodes = 0  # begun so far; the number of one says whether an answer is still of use
        self._wanted = self._running = 0  # the episode that runs, and that the operator knows of; 0 for none
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Begin to ask, with nothing said yet; returns when the operator is ready, or has had its time."""
        with self._changed:
            self._episodes += 1
            self._seen, self._answer = None, Reply(time_ns=time.monotonic_ns())
            self._words.clear()
            self._wanted = self._episodes
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._running == self._wanted or bool(self._answer.fault), max(self.patience, REST_SECONDS)
            )
            self._answer = replace(self._answer, time_ns=time.monotonic_ns())

    def rest(self) -> None:
        """Ask no more; returns when the operator has given back what others need, or has had its time."""
        with self._changed:
            self._wanted = 0
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
            self._wanted, self._closed = 0, True
            self._changed.notify_all()
        self._thread.join(REST_SECONDS)
        self._operator.close()

    def _run(self) -> None:
        done = 0
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted not in (0, done) or self._closed, IDLE_SECONDS)  # noqa: B023
                episode = self._wanted
            if episode not in (0, done):
                done = episode
                self._episode(episode)

    def _episode(self, episode: int) -> None:
        try:
            self._operator.begin()
            self._note(episode)
            while self._wanted == episode:
                self._poll(episode)
        except BaseException as error:  # whatever a device's library raises
            self._dead(episode, _told(error))
        finally:
            try:
                self._operator.rest()
            except BaseException as error:
                self._dead(episode, _told(error))
            self._note(0)

    def _poll(self, episode: int) -> None:
        """Ask once, when it is time or there is something new to see."""
        with self._changed:
            if self.waits:
                self._changed.wait_for(
                    lambda: self._seen is not self._answer.to or self._wanted != episode, IDLE_SECONDS
                )
            else:
                self._changed.wait_for(lambda: self._wanted != episode, self._pause)
            if self._wanted != episode or (self.waits and self._seen is self._answer.to):
                return
            if self._seen is None:  # it lives, and there is nothing to see yet
                self._answer = replace(self._answer, time_ns=time.monotonic_ns())
                return
            seen = self._seen
        wanted = self._operator.action(seen)
        action = None if wanted is None else np.array(wanted)  # it may fill the same memory again
        engaged = _truth(self._operator.engaged())
        words = []
        while (word := self._operator.said()) is not None:
            if not isinstance(word, Said):
                raise TypeError(f"a person says {word!r:.60}; it must be a robots.people.operator.Said, or None")
            words.append(word)
            if len(words) > MAX_WORDS:
                raise TypeError(f"a person says over {MAX_WORDS:,} words at once; its said() must give None after them")
        with self._changed:
            if self._wanted == episode:  # what comes later is of no use
                self._words.extend(words)
                self._answer = Reply(engaged, action, time.monotonic_ns(), to=seen)
                self._changed.notify_all()

    def _dead(self, episode: int, fault: str) -> None:
        with self._changed:
            if self._wanted == episode:
                self._answer = replace(self._answer, fault=fault, action=None)
                self._changed.notify_all()

    def _note(self, running: int) -> None:
        with self._changed:
            self._running = running
            self._changed.notify_all()


def _truth(engaged: Any) -> bool:
    """Whether a person has the robot: nothing, a text or a call that nobody waits for must not pass for an answer."""
    if not isinstance(engaged, bool | np.bool_ | int):
        raise TypeError(f"engaged() gives {engaged!r:.60}; it must be True or False")
    return bool(engaged)


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}{line_of(error)}"
