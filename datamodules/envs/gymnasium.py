"""Any registered Gymnasium id with flat observations and actions, through TorchRL's wrapper.

`module:Id` imports the module first, which registers it, as `gymnasium.make` does: also in every worker process.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import TransformAction, TransformObservation
from torchrl.envs import EnvBase, GymWrapper, SerialEnv, StepCounter, TransformedEnv

from datamodules.envs.gymnasium_checks import Alike, Checked
from datamodules.envs.gymnasium_success import LateSuccess, SuccessReader, tells_success
from datamodules.envs.seeding import episode_seed
from datamodules.envs.simulation import SeededSimulation
from gipo.common.arrays.precision import nearest_in
from gipo.common.errors import UserError, nearest
from gipo.common.faults import described


def find(name: str) -> "GymnasiumTask | None":
    """The task with this Gymnasium id, where it is registered after the import of the module that it names.

    Raises:
        UserError: when it names a module that cannot be imported, or that does not register it.
    """
    return GymnasiumTask(name) if _registered(name) in gymnasium.registry else None


@dataclass(frozen=True)
class GymnasiumTask(SeededSimulation):
    """A registered Gymnasium id with flat observations and actions.

    Args:
        name: the id, such as `Pendulum-v1`, or `module:Id`.
    """

    name: str

    @property
    def horizon(self) -> int | None:
        """Steps after which the registration has an episode truncated, where it does."""
        return gymnasium.spec(_registered(self.name)).max_episode_steps

    @property
    def interface(self) -> None:
        """None: an id says neither names nor units; `gymnasium_interface` makes some up."""

    def environment(self, num_envs: int, evaluating: bool) -> "GymnasiumEnv":
        """Simulators that step one after another; evaluation has them too.

        Raises:
            UserError: when Gymnasium cannot make the environment, or its spaces are not flat boxes.
        """
        return GymnasiumEnv(num_envs, partial(_single, self.name, Alike(self.name)))


class GymnasiumEnv(SerialEnv):
    """N environments of a Gymnasium id in this process, stepped one after another."""

    def begin_with(self, numbers: Sequence[int], seed: int) -> None:
        """The next reset begins these episodes of the evaluation with this seed."""
        if self.is_closed:
            self.start()
        with torch.random.fork_rng(devices=[]):  # which TorchRL seeds too
            for env, number in zip(self._envs, numbers, strict=True):
                env.set_seed(episode_seed(seed, number))


def _registered(name: str) -> str:
    """The id of a task, which is registered once its module, if it names one, is imported.

    Raises:
        UserError: when the module cannot be imported.
    """
    module, separator, identifier = name.rpartition(":")
    if not separator:
        return name
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # importing a module runs whatever it holds
        raise UserError(f"data.task={name}: module {module!r} cannot be imported: {described(error)}") from error
    if identifier not in gymnasium.registry:
        raise UserError(
            f"data.task={name}: module {module!r} registers no {identifier!r}. "
            f"Nearest: {nearest(identifier, gymnasium.registry)}"
        )
    return identifier


def _single(task: str, others: Alike) -> EnvBase:
    try:
        env = gymnasium.make(task)
    except Exception as error:  # whatever the environment's author raises, missing packages above all
        raise UserError(f"gymnasium cannot make task {task!r}: {error}") from error
    for name, space in (("observation", env.observation_space), ("action", env.action_space)):
        if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
            way = "; register it within gymnasium.wrappers.FlattenObservation" if name == "observation" else ""
            raise UserError(f"task {task!r} has the {name} space {space}; gipo needs a flat gymnasium.spaces.Box{way}")
    if not np.isfinite([env.action_space.low, env.action_space.high]).all():
        raise UserError(f"the actions of task {task!r} are not bounded: {env.action_space}; give them finite bounds")
    others.check(env)
    if env.observation_space.dtype != np.float32:
        env = TransformObservation(env, partial(np.asarray, dtype=np.float32), _float(env.observation_space))
    if env.action_space.dtype != np.float32:
        # It gets the nearest values that it can hold. What was sampled stays what is learnt from; a robot of the same
        # environment rounds alike.
        nearest_held = partial(nearest_in, low=env.action_space.low, high=env.action_space.high)
        env = TransformAction(env, nearest_held, _float(env.action_space))
    checked = Checked(env, task)
    told = tells_success(checked)  # which steps it, before TorchRL's wrapper resets it
    wrapped = GymWrapper(checked)
    wrapped.set_info_dict_reader(SuccessReader(task) if told else LateSuccess(task))
    return TransformedEnv(wrapped, StepCounter(step_count_key="step"))


def _float(space: gymnasium.spaces.Box) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32))
