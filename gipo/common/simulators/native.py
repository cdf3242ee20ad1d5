"""Simulators in C++ (EnvPool), many to a pool: no Python for each of them, and no lock of the interpreter held."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gipo.common.errors import UserError
from gipo.common.extras import install
from gipo.common.simulators.lean_models import lean_models

METAWORLD = "MetaWorld/"  # what ids of its tasks begin with
SUCCESS = ("success", "solved")  # where tasks say that they have succeeded, of which each has one at most


def available() -> bool:
    """Whether EnvPool is installed; it is not imported."""
    return importlib.util.find_spec("envpool") is not None


def envpool() -> Any:
    """EnvPool itself, imported when it is needed: that takes a second.

    Raises:
        UserError: when it is not installed.
    """
    try:
        import envpool
    except ImportError as error:
        raise UserError(
            f"native simulators need envpool, which there is for Python 3.11 and newer: {install('fast')}"
        ) from error
    return envpool


def metaworld_id(task: str) -> str:
    """The id that a MetaWorld task such as `reach-v3` has in EnvPool."""
    *words, version = task.split("-")
    return METAWORLD + "".join(word.capitalize() for word in words) + "-" + version


class Answer(NamedTuple):
    """What N simulators answer to an action each: the last observation of an episode, not the next one's first.

    Observations are [N, O] f64 or f32, the rest is [N]; `success` is None where the task has no notion of it.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray | None


class Pool:
    """N simulators of one task. All begin with `reset`, and one whose episode has ended is to be reset.

    Args:
        task: an id of EnvPool.
        seeds: of every simulator, 32 bits [N]: the episodes that it draws follow from its seed alone.
        threads: that step them.
    """

    def __init__(self, task: str, seeds: Sequence[int], threads: int = 1):
        library = envpool()
        options: dict[str, Any] = {"num_envs": len(seeds), "num_threads": threads}
        options["seed"] = np.asarray(seeds, np.uint32).astype(np.int32).tolist()
        if task.startswith(METAWORLD):
            options["partially_observable"] = False
            options["base_path"] = lean_models(Path(library.registration.base_path))
        self._pool: Any = library.make_gymnasium(task, **options)
        self._dtype = self._pool.action_space.dtype
        self._success: str | None = success_key(self._pool.spec)

    def reset(self, chosen: np.ndarray | None = None) -> np.ndarray:
        """Begin new episodes in the simulators `chosen` [M], or in all: their first observations [M, O]."""
        observation: np.ndarray = self._pool.reset(None if chosen is None else np.asarray(chosen, np.int32))[0]
        return observation

    def step(self, actions: np.ndarray) -> Answer:
        """Step every simulator by its action [N, D]."""
        observation, reward, terminated, truncated, info = self._pool.step(np.asarray(actions, self._dtype))
        success = None if self._success is None else info[self._success] > 0
        return Answer(observation, reward, terminated, truncated, success)

    def close(self) -> None:
        """End the threads and free the simulators."""
        self._pool.close()
        self._pool = None


def success_key(spec: Any) -> str | None:
    """Where a task of this EnvPool spec says whether it has succeeded."""
    return next((key for key in SUCCESS if f"info:{key}" in spec.state_array_spec), None)
