"""LIBERO's suites and tasks by name, state-only."""

from collections.abc import Iterable
from typing import Any

from torchrl.envs import EnvBase

from datamodules.envs.families import Family
from datamodules.envs.libero import tasks


class LiberoFamily(Family):
    """A suite (`libero_goal`) or one of its tasks (`libero_goal/7`, `libero_goal/turn_on_the_stove`)."""

    def knows(self, name: str) -> bool:
        """Whether there is such a suite or task; a name that begins like a suite must be right."""
        return tasks.known(name)

    def names(self) -> Iterable[str]:
        """Suites and tasks, where LIBERO is installed."""
        return tasks.names()

    def horizon(self, name: str) -> int:
        """Of the suite."""
        return tasks.find(name)[0].horizon

    def parts(self, name: str) -> tuple[str, ...]:
        """The tasks' own names."""
        return tuple(task.name for task in tasks.find(name))

    def make(self, name: str, num_envs: int) -> EnvBase:
        """Simulators that begin anywhere among the benchmark's initial states."""
        return self._env(name, num_envs, evaluating=False)

    def make_evaluation(self, name: str, num_envs: int) -> EnvBase:
        """Simulators that go through tasks and initial states in the benchmark's order."""
        return self._env(name, num_envs, evaluating=True)

    def interface(self, name: str) -> dict[str, Any]:
        """Of a suite, whose tasks name their numbers differently, these are only counted."""
        from datamodules.envs.libero.simulator import interface

        return interface(tasks.find(name))

    @staticmethod
    def _env(name: str, num_envs: int, evaluating: bool) -> EnvBase:
        from datamodules.envs.libero.states import LiberoStateEnv

        return LiberoStateEnv(tasks.find(name), num_envs, evaluating)
