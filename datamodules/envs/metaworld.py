"""MetaWorld's tasks, many simulators to a process; MetaWorld, a third of a start-up, is imported for a task of it."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.envs.batched import BatchedEnv, Outcome
from datamodules.envs.simulation import SeededSimulation
from gipo.common.simulators.lean_models import OBSERVED
from gipo.common.simulators.metaworld import hasten, interface, show_goal

VERSION = "-v3"  # what the names of its tasks end with


def find(name: str) -> "MetaWorldTask | None":
    """The MetaWorld task of this name, where there is one."""
    return MetaWorldTask(name) if name.endswith(VERSION) and name in environments() else None


def environments() -> dict[str, Any]:
    """MetaWorld's own class of every task, by its name."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    return dict(ALL_V3_ENVIRONMENTS)


@dataclass(frozen=True)
class MetaWorldTask(SeededSimulation):
    """A MetaWorld task.

    Args:
        name: one of the fifty, such as `reach-v3`.
    """

    name: str

    @property
    def horizon(self) -> int:
        """Steps after which MetaWorld truncates an episode."""
        return int(environments()[self.name].max_path_length)

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate of observations and actions, which all fifty share."""
        return interface()

    def environment(self, num_envs: int, evaluating: bool) -> "MetaWorldEnv":
        """Simulators that share a compiled model; evaluation has them too."""
        return MetaWorldEnv(self.name, num_envs)


class MetaWorldEnv(BatchedEnv):
    """N simulators of one MetaWorld task (MT1: goal visible, a new goal every episode).

    Each simulator draws goals from its own generator; `set_seed` seeds all N, so that equal seeds give equal goals
    in equal order, and different simulators different ones. The XML and meshes are compiled once in a process, for
    training and evaluation, and copied.

    Args:
        task: a `-v3` name.
        num_envs: N.
        seen: whether it is drawn, which takes all that is only seen into the model.
    """

    def __init__(self, task: str, num_envs: int, seen: bool = False):
        simulators = _simulators(task, num_envs, seen)
        space = simulators[0].action_space
        super().__init__(num_envs, simulators[0].sawyer_observation_space.shape[0], space.low, space.high)
        self.task = task
        self.simulators = simulators

    def _set_seed(self, seed: int | None) -> None:
        sequences = np.random.SeedSequence(seed).spawn(len(self.simulators))
        for simulator, sequence in zip(self.simulators, sequences, strict=True):
            simulator.np_random = np.random.default_rng(sequence)

    def begin_with(self, numbers: Sequence[int], seed: int) -> None:
        """The next reset begins these episodes of the evaluation with this seed, the first N as `set_seed` does."""
        for simulator, number in zip(self.simulators, numbers, strict=True):
            simulator.np_random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))

    def _begin(self, index: int) -> np.ndarray:
        return self.simulators[index].reset()[0]

    def _advance(self, index: int, action: np.ndarray) -> Outcome:
        observation, reward, terminated, truncated, info = self.simulators[index].step(action)
        return Outcome(observation, reward, terminated, truncated, info["success"])

    def close(self, **kwargs: Any) -> None:
        """Release the simulators of all places."""
        for simulator in self.simulators:
            simulator.close()
        super().close(**kwargs)


@functools.lru_cache(maxsize=1)
def _compiled(task: str, seen: bool) -> Any:
    """The task's model to copy, without what is only seen unless it is: reading XML and meshes takes much longer."""
    import mujoco

    # Making the task would compile all of it; its file's name needs no more than the class.
    path = Path(object.__new__(environments()[task]).model_name)
    spec = mujoco.MjSpec.from_file(str(path))
    spec.compiler.discardvisual = not seen
    if path.name in OBSERVED:
        kind = [mujoco.mjtObj.mjOBJ_GEOM]
        spec.add_tuple(name="observed", objtype=kind, objname=[OBSERVED[path.name]], objprm=[0.0])
    return spec.compile()


def _simulators(task: str, count: int, seen: bool) -> list[Any]:
    from mujoco import MjData

    base = environments()[task]
    model_of_all = _compiled(task, seen)

    class CopiedTask(base):  # type: ignore[misc, valid-type]
        """The task with a copy of the compiled model: MetaWorld moves bodies in the model itself."""

        def _initialize_simulation(self) -> tuple[Any, Any]:
            model = copy.copy(model_of_all)
            return model, MjData(model)

    simulators = [CopiedTask() for _ in range(count)]
    for simulator in simulators:
        show_goal(simulator)
        hasten(simulator)
    return simulators
