"""Tasks by name, whatever simulates them.

Every environment made here has batch size [N] and, beside TorchRL's own keys,

    observation [N, O] f32      raw
    action      [N, D] f32      environment units
    step        [N, 1] int64    steps since the episode began
    success     [N, 1] bool     only where the task has a notion of success
    task        [N, 1] int64    only where the task has several parts

Truncation and termination stay apart: a time limit sets `truncated` alone.
"""

import inspect
import pydoc
from dataclasses import dataclass
from typing import Any

from torchrl.envs import EnvBase

from datamodules.envs.families import Family
from datamodules.envs.gymnasium import GymnasiumFamily
from datamodules.envs.libero.family import LiberoFamily
from datamodules.envs.metaworld import MetaWorldFamily
from datamodules.envs.seeding import seed_env
from datamodules.envs.simulation import Simulation
from gipo.common.boundary import described
from gipo.common.errors import UserError, nearest
from gipo.policies import Spaces

# In the order they are asked: LIBERO last, as it is loaded only for a name that the others do not know.
FAMILIES: tuple[Family, ...] = (MetaWorldFamily(), GymnasiumFamily(), LiberoFamily())


@dataclass(frozen=True)
class Task(Simulation):
    """A task by name.

    One of MetaWorld's (`reach-v3`), a registered Gymnasium id (`Pendulum-v1`) or one that a module registers
    (`my_envs:MyTask-v0`), a LIBERO suite (`libero_goal`) or one
    task of it (`libero_goal/7`, `libero_goal/turn_on_the_stove`, `turn_on_the_stove`).

    Raises:
        UserError: for an unknown name, with the nearest ones.
    """

    name: str

    def __post_init__(self) -> None:
        self._family()

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is truncated, where there is such a limit."""
        return self._family().horizon(self.name)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tasks it consists of, as `task` of its environments counts them."""
        return self._family().parts(self.name)

    @property
    def interface(self) -> dict[str, Any] | None:
        """Names, units and rate of observations and actions, where they have true ones."""
        return self._family().interface(self.name)

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """`num_envs` seeded simulators behind one environment of batch size [num_envs]."""
        return self._seeded(self._family().make(self.name, num_envs), seed)

    def make_evaluation(self, num_envs: int, seed: int) -> EnvBase:
        """As `make`, for evaluation: where a benchmark lays down the episodes, they are those, in its order."""
        return self._seeded(self._family().make_evaluation(self.name, num_envs), seed)

    def _family(self) -> Family:
        for family in FAMILIES:
            if family.knows(self.name):
                return family
        known = [name for family in FAMILIES for name in family.names()]
        raise UserError(
            f"unknown task {self.name!r}: neither a MetaWorld task nor a registered Gymnasium id (or module:Id), nor "
            f"one of LIBERO's, nor the import path of a Simulation. "
            f"Nearest: {nearest(self.name, known)}"
        )

    @staticmethod
    def _seeded(env: EnvBase, seed: int) -> EnvBase:
        seed_env(env, seed)
        return env

    def spaces(self, env: EnvBase) -> Spaces:
        """Sizes and bounds for a policy."""
        return spaces_of(env)


def simulation(name: str) -> Simulation:
    """The task of this name, or a simulation of the class with this import path, made without options.

    Raises:
        UserError: for an unknown name, or a class that cannot be made, naming what it lacks.
    """
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        return Task(name)
    kind = _class_at(name)
    missing = sorted(kind.__abstractmethods__)
    if missing:
        raise UserError(f"data.task={name} cannot be made: a Simulation has {', '.join(missing)} too")
    needed = [one.name for one in inspect.signature(kind).parameters.values() if _is_needed(one)]
    if needed:
        raise UserError(f"data.task={name} cannot be made without --data.task.{needed[0]}=VALUE")
    made = kind()
    if not isinstance(getattr(made, "name", None), str):
        raise UserError(f"data.task={name} has no name; a Simulation has one, a text")
    return made


def _class_at(path: str) -> type[Simulation]:
    try:
        found = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"data.task={path} cannot be imported: {described(error.value or error)}") from error
    if found is None:
        raise UserError(f"data.task={path}: there is no such class; a task by name has no dot in it")
    if not (inspect.isclass(found) and issubclass(found, Simulation)):
        raise UserError(f"data.task={path} is no class derived from datamodules.envs.simulation.Simulation")
    return found


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def spaces_of(env: EnvBase) -> Spaces:
    """Sizes and bounds for a policy, read off the environment's specs."""
    action = env.action_spec
    low, high = action.space.low.flatten(0, -2)[0], action.space.high.flatten(0, -2)[0]
    return Spaces(env.observation_spec["observation"].shape[-1], tuple(low.tolist()), tuple(high.tolist()))
