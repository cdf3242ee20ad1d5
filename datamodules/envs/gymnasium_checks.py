"""What a Gymnasium environment answers, held against what it says of itself before it is taken for data."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from datamodules.envs.simulation import close_or_say
from gipo.common.errors import UserError
from gipo.common.simulators.gymnasium_info import is_number

LIBRARY = str(Path(gymnasium.__file__).parent)


class Alike:
    """Refuses a simulator whose spaces are not those of the first one that was made.

    Args:
        task: id, for what is refused.
    """

    def __init__(self, task: str):
        self._task = task
        self._first: tuple[Any, gymnasium.Space] | None = None

    def check(self, env: gymnasium.Env) -> None:
        """Look at a simulator.

        Raises:
            UserError: when it observes more or fewer numbers than the first, or acts otherwise.
        """
        seen, actions = found = env.observation_space.shape, env.action_space
        of_first, first_actions = self._first = self._first or found
        if seen != of_first:
            self._refuse(f"observes {seen} numbers, the first {of_first}")
        if actions != first_actions:
            self._refuse(f"has the action space {actions}, the first {first_actions}")

    def _refuse(self, what: str) -> None:
        raise UserError(f"a simulator of task {self._task!r} {what}; all must have the same: one policy acts in them")


class Checked(gymnasium.Wrapper):
    """An environment that is refused by name where an observation, a reward or an end is none.

    Without it a reward of None would count as 0, and an observation of another shape would be the library's riddle.
    """

    def __init__(self, env: gymnasium.Env, task: str):
        super().__init__(env)
        self._task = task

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, which must observe what its space has."""
        with self._by_name():
            observation, info = self.env.reset(seed=seed, options=options)
        self._refuse_other_shape(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment, which must give one number as its reward, and flags that are true or false."""
        with self._by_name():  # an action of its own: what it writes into it must not become what was sampled
            observation, reward, terminated, truncated, info = self.env.step(np.array(action))
        self._refuse_other_shape(observation)
        if not is_number(reward):
            raise UserError(f"task {self._task!r}: a reward is one number, got {reward!r}")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if np.size(flag) != 1 or np.asarray(flag).dtype.kind not in "iub":
                raise UserError(f"task {self._task!r}: {name} is true or false, got {flag!r}")
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Close the environment."""
        close_or_say(self.env.close, self._task)

    def _refuse_other_shape(self, observation: Any) -> None:
        expected = self.env.observation_space.shape
        if np.shape(observation) != expected:
            raise UserError(
                f"task {self._task!r}: its observation space has the shape {expected}, "
                f"an observation {np.shape(observation)}"
            )

    @contextmanager
    def _by_name(self) -> Iterator[None]:
        """What Gymnasium itself cannot do with an answer is the environment's fault."""
        try:
            yield
        except (AssertionError, TypeError, ValueError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1].filename
            if not place.startswith((LIBRARY, __file__)):
                raise
            raise UserError(f"task {self._task!r} does not keep to Gymnasium's interface: {error}") from error
