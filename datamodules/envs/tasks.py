"""Tasks by name, whatever simulates them."""

import inspect
import pydoc

from gymnasium import registry

from datamodules.envs import envpool, gymnasium, metaworld, metaworld_camera
from datamodules.envs.libero import states, tasks
from datamodules.envs.simulation import Simulation
from gipo.common.errors import UserError, nearest
from gipo.common.faults import described

# In the order they are asked: LIBERO last, as it is loaded only for a name that the others do not know.
FINDERS = (metaworld.find, metaworld_camera.find, envpool.find, gymnasium.find, states.find)


def find(name: str) -> Simulation | None:
    """The task of this name: of MetaWorld (`reach-v3`), EnvPool (`envpool:Id`), Gymnasium (`Pendulum-v1`, `module:Id`).

    Or of MetaWorld seen by a camera (`camera:reach-v3`), or of LIBERO: it is a suite (`libero_goal`) or one task of it
    (`libero_goal/7`, `turn_on_the_stove`).

    Raises:
        UserError: when the name is plainly meant for one of them, and wrong.
    """
    return next((task for look in FINDERS if (task := look(name)) is not None), None)


def simulation(name: str) -> Simulation:
    """The task of this name, or a simulation of the class with this import path, made without options.

    Raises:
        UserError: for an unknown name, with the nearest ones, or a class that cannot be made, naming what it lacks.
    """
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        return _made(name)
    if (found := find(name)) is not None:
        return found
    known = [*metaworld.environments(), *registry, *tasks.names()]
    raise UserError(
        f"unknown task {name!r}: neither a MetaWorld task nor a registered Gymnasium id (or module:Id), nor one of "
        f"LIBERO's, nor the import path of a Simulation. Nearest: {nearest(name, known)}"
    )


def _made(path: str) -> Simulation:
    kind = _class_at(path)
    missing = sorted(kind.__abstractmethods__)
    if missing:
        raise UserError(f"data.task={path} cannot be made: a Simulation has {', '.join(missing)} too")
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(kind).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind not in optional]
    if needed:
        raise UserError(f"data.task={path} cannot be made without --data.task.{needed[0]}=VALUE")
    made = kind()
    if not isinstance(getattr(made, "name", None), str):
        raise UserError(f"data.task={path} has no name; a Simulation has one, a text")
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
