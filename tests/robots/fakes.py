"""A robot that keeps what reached its bus, a policy that says what it is told, and every fault they can have."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from deploy.runtime.acting import Decision
from robots.base import Observation
from robots.spec import RobotSpec
from tests.robots.builders import make_spec

Fault = Callable[["FakeRobot"], Any]


class FakeRobot:
    """An arm of integrators with a bus.

    Args:
        faults: tick → what happens in `observe` then: a replacement for the observation, or an exception.
        act_faults: the same for `act`, before anything reaches the bus.
    """

    def __init__(
        self,
        spec: RobotSpec | None = None,
        faults: dict[int, Fault] | None = None,
        act_faults: dict[int, Fault] | None = None,
    ):
        self.spec = spec or make_spec()
        self.faults, self.act_faults = faults or {}, act_faults or {}
        self.bus: list[tuple[int, str, Any]] = []  # (time, "act" | "stop", command | reason)
        self.lock = threading.Lock()
        self.stopped = False
        self.tick = -1
        self.position = np.zeros(self.spec.action_size)

    def connect(self) -> None: ...

    def prepare(self, seed: int) -> None:
        self.stopped, self.tick = False, -1
        self.position[:] = 0.0

    def observe(self) -> Observation:
        self.tick += 1
        if self.tick in self.faults:
            found = self.faults[self.tick](self)
            if found is not None:
                return found
        return self.reading()

    def reading(self, **changes: Any) -> Observation:
        values = np.resize(self.position, self.spec.observation_size)
        return Observation(**{"values": values, "time_ns": time.monotonic_ns(), "reward": 1.0, **changes})

    def act(self, action: np.ndarray) -> np.ndarray:
        if self.tick in self.act_faults:
            self.act_faults[self.tick](self)
        with self.lock:
            if self.stopped:
                raise ConnectionError("the bus is closed")
            self.bus.append((time.monotonic_ns(), "act", action.copy()))
        self.position = np.clip(self.position + 0.01 * action, -1.0, 1.0)
        return action

    def stop(self, reason: str) -> None:
        with self.lock:
            self.stopped = True
            self.bus.append((time.monotonic_ns(), "stop", reason))

    def close(self) -> None: ...

    @property
    def commands(self) -> np.ndarray:
        """[N, D] in the order they reached the bus."""
        return np.array([entry for _, kind, entry in self.bus if kind == "act"]).reshape(-1, self.spec.action_size)

    @property
    def stops(self) -> list[tuple[int, str]]:
        """Time and reason of every stop."""
        return [(moment, entry) for moment, kind, entry in self.bus if kind == "stop"]


class FakePolicy:
    """Chooses smooth actions; `say` replaces the decision of a tick, or hangs, or raises."""

    policy_id = "ab" * 32

    def __init__(self, size: int = 3, say: dict[int, Callable[[], Any]] | None = None):
        self.manifest: Any = SimpleNamespace(policy_version=7, vision=None)
        self.size, self.say, self.tick = size, say or {}, -1

    def act(self, observation: np.ndarray, rng: Any, deterministic: bool = False) -> Decision:
        self.tick += 1
        action = np.full(self.size, 0.3 * np.sin(self.tick / 40) ** 2, np.float32)
        if self.tick in self.say:
            said = self.say[self.tick]()
            action = action if said is None else said
        numbers = np.zeros(self.size, np.float32)
        return Decision(action, np.zeros(self.size, np.int64), numbers, numbers)


def hang(seconds: float) -> Callable[..., None]:
    """Does nothing for `seconds`."""
    return lambda *_: time.sleep(seconds)


def die(error: Exception) -> Callable[..., None]:
    """Raises."""

    def fail(*_: Any) -> None:
        raise error

    return fail
