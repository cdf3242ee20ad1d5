"""Who demonstrates: MetaWorld's own policies, a script for LIBERO, or a class or function of the user's."""

import inspect
import pydoc
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from torchrl.envs import EnvBase, TransformedEnv

from datamodules.envs.metaworld import MetaWorldTask
from datamodules.envs.metaworld_camera import MetaWorldVLA
from datamodules.envs.simulation import Simulation
from gipo.common.errors import UserError
from gipo.common.faults import described

MOVES = 3  # of MetaWorld's and LIBERO's actions: the first move the hand, the rest turns it and moves the fingers


class Script(Protocol):
    """A policy that is written down; a new one is made for every episode.

    Args:
        noisy: how many of the actions, the first ones, noise may be added to; None for all.
    """

    noisy: int | None

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """The action [D] for an observation [O], in environment units; it need not be within bounds."""


ScriptMaker = Callable[[EnvBase], Script]
"""Makes the script of an episode, which has begun in the one simulator of this environment."""


class FunctionScript:
    """A function from observation to action as a script.

    Args:
        act: [O] → [D].
        noisy: as `Script` has it.
    """

    def __init__(self, act: Callable[[np.ndarray], np.ndarray], noisy: int | None = None):
        self.act, self.noisy = act, noisy

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """What the function says."""
        return self.act(observation)


def script_of(task: Simulation, path: str | None) -> ScriptMaker:
    """The script of a task, or the user's with this import path.

    Raises:
        UserError: when nothing is scripted for the task, or there is no such class or function.
    """
    if path is not None:
        return _users(path)
    if isinstance(task, MetaWorldTask):
        return lambda env: FunctionScript(_metaworld_policy(task.name), MOVES)
    if isinstance(task, MetaWorldVLA):
        act = _metaworld_policy(task.task)
        # It goes by what no policy is told.
        return lambda env: FunctionScript(lambda observation: act(_inner(env).whole(0)), MOVES)
    if _is_libero(task):
        from datamodules.envs.libero.script import PickAndPlace

        def pick_and_place(env: EnvBase) -> Script:
            act = PickAndPlace(_inner(env).simulator(0))
            return FunctionScript(lambda observation: act(), MOVES)

        return pick_and_place
    raise UserError(
        f"nothing is scripted for {task.name}: MetaWorld's tasks have policies of their own, LIBERO's a script; "
        "name a class or function of yours with --script module.NAME"
    )


def _is_libero(task: Simulation) -> bool:
    return type(task).__module__.startswith("datamodules.envs.libero.")


def _metaworld_policy(name: str) -> Callable[[np.ndarray], np.ndarray]:
    from metaworld.policies import ENV_POLICY_MAP

    # It warns of asking for more than an action can be; what is asked for is clipped.
    warnings.filterwarnings("ignore", module=r"metaworld\.policies")
    act: Callable[[np.ndarray], np.ndarray] = ENV_POLICY_MAP[name]().get_action
    return act


def _users(path: str) -> ScriptMaker:
    try:
        found: Any = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"--script {path} cannot be imported: {described(error.value or error)}") from error
    if not callable(found):
        raise UserError(f"--script {path}: there is no such class or function; it is named module.NAME")
    if not inspect.isclass(found):
        return lambda env: FunctionScript(found)

    def make(env: EnvBase) -> Script:
        kind: Any = found
        made = kind(_inner(env)) if inspect.signature(kind).parameters else kind()
        if not callable(made):
            raise UserError(f"--script {path}: its instances must be callable, observation [O] → action [D]")
        return FunctionScript(made, getattr(made, "noisy", None))

    return make


def _inner(env: Any) -> Any:
    while isinstance(env, TransformedEnv):
        env = env.base_env
    return env
