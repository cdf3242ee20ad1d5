"""Operators that do what a test says, and a policy that a person can take over from."""

import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from deploy.runtime.acting import Decision
from deploy.runtime.layout import Vision
from robots.base import Observation
from robots.people.operator import Operator, Said
from tests.robots.fakes import FakePolicy

PUSH = np.array([0.8, -0.8, 0.9])  # what a person commands, unless a test says otherwise


class FakeOperator(Operator):
    """Has the robot in `turns` of ticks, commands `push`, says words at ticks; `faults` happen instead of an answer.

    Ticks are counted by the observations that are shown.
    """

    def __init__(
        self,
        turns: tuple[range, ...] = (),
        push: Callable[[int], Any] = lambda tick: PUSH,
        words: dict[int, list[Said]] | None = None,
        faults: dict[int, Callable[[], Any]] | None = None,
    ):
        self.turns, self.push, self.words, self.faults = turns, push, words or {}, faults or {}
        self.begun = self.rested = self.closed = 0
        self.tick, self._seen, self._waiting = -1, None, deque[Said]()

    def begin(self) -> None:
        self.begun += 1
        self.tick, self._seen = -1, None

    def action(self, observation: Observation) -> Any:
        if observation is not self._seen:
            self._seen = observation
            self.tick += 1
            self._waiting.extend(self.words.get(self.tick, []))
            if self.tick in self.faults:
                self.faults[self.tick]()
        return self.push(self.tick)

    def engaged(self) -> bool:
        return any(self.tick in turn for turn in self.turns)

    def said(self) -> Said | None:
        return self._waiting.popleft() if self._waiting else None

    def rest(self) -> None:
        self.rested += 1

    def close(self) -> None:
        self.closed += 1


class HelpedPolicy(FakePolicy):
    """Says of another's action that its latent is the sign, with log-prob −1."""

    def judged(self, decision: Decision, action: np.ndarray) -> Decision:
        latent = (np.asarray(action) > 0).astype(np.int64)
        return Decision(np.asarray(action, np.float32), latent, np.full(self.size, -1, np.float32), decision.params)


class ChunkedPolicy(HelpedPolicy):
    """Decides on four actions at once; each decision's actions are its number."""

    def __init__(self, size: int = 3):
        super().__init__(size)
        vision = Vision(image=(3, 2, 2), instruction_bytes=8, chunk=4)
        self.manifest = SimpleNamespace(policy_version=7, vision=vision, observation_size=5)

    def row(self, values: np.ndarray, image: np.ndarray, instruction: str) -> np.ndarray:
        return values

    def act(self, observation: np.ndarray, rng: Any, deterministic: bool = False) -> Decision:
        self.tick += 1
        action = np.full((4, self.size), 0.01 * self.tick, np.float32)
        return Decision(action, np.zeros((4, self.size), np.int64), np.zeros_like(action), np.zeros((4, self.size, 2)))


def hang(seconds: float) -> Callable[[], None]:
    """Does not answer for so long."""
    return lambda: time.sleep(seconds)


def die(error: BaseException) -> Callable[[], None]:
    """Raises."""

    def fail() -> None:
        raise error

    return fail
