"""Batched environments: MetaWorld in one process, and any Gymnasium id through TorchRL's wrapper.

Every environment made here has batch size [N] and, beside TorchRL's own keys,

    observation [N, O] f32      raw
    action      [N, D] f32      environment units
    step        [N, 1] int64    steps since the episode began
    success     [N, 1] bool     only where the task has a notion of success

Truncation and termination stay apart: a time limit sets `truncated` alone.
"""

import copy
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import gymnasium
import mujoco
import numpy as np
import scipy
import torch
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from scipy.spatial.transform import Rotation
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import DoubleToFloat, EnvBase, GymWrapper, SerialEnv, StepCounter, TransformedEnv

from datamodules.interface import metaworld_interface
from datamodules.simulation import Simulation
from gipo.errors import GipoError, nearest
from gipo.policies import Spaces


@dataclass(frozen=True)
class Task(Simulation):
    """A task by name: one of MetaWorld's (`reach-v3`), else a registered Gymnasium id (`Pendulum-v1`).

    Raises:
        GipoError: for an unknown name, with the nearest ones.
    """

    name: str

    def __post_init__(self) -> None:
        if not (self.is_metaworld or self.name in gymnasium.registry):
            known = [*ALL_V3_ENVIRONMENTS, *gymnasium.registry]
            raise GipoError(
                f"unknown task {self.name!r}: neither a MetaWorld task nor a registered Gymnasium id. "
                f"Nearest: {nearest(self.name, known)}"
            )

    @property
    def is_metaworld(self) -> bool:
        """Whether the task is one of MetaWorld's."""
        return self.name in ALL_V3_ENVIRONMENTS

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is truncated, where there is such a limit."""
        return SawyerXYZEnv.max_path_length if self.is_metaworld else gymnasium.spec(self.name).max_episode_steps

    def make(self, num_envs: int, seed: int) -> EnvBase:
        """`num_envs` seeded simulators behind one environment of batch size [num_envs]."""
        env = MetaWorldEnv(self.name, num_envs) if self.is_metaworld else _gymnasium_env(self.name, num_envs)
        seed_env(env, seed)
        return env

    def spaces(self, env: EnvBase) -> Spaces:
        """Sizes and bounds for a policy."""
        return spaces_of(env)

    @property
    def interface(self) -> dict[str, Any] | None:
        """MetaWorld's; the names of a Gymnasium id are only numbers."""
        return metaworld_interface() if self.is_metaworld else None


def spaces_of(env: EnvBase) -> Spaces:
    """Sizes and bounds for a policy, read off the environment's specs."""
    action = env.action_spec
    low, high = action.space.low.flatten(0, -2)[0], action.space.high.flatten(0, -2)[0]
    return Spaces(env.observation_spec["observation"].shape[-1], tuple(low.tolist()), tuple(high.tolist()))


def seed_env(env: EnvBase, seed: int) -> None:
    """Seed an environment without touching torch's global generator, which `EnvBase.set_seed` reseeds."""
    with torch.random.fork_rng(devices=[]):
        env.set_seed(seed)


class MetaWorldEnv(EnvBase):
    """N simulators of one MetaWorld task (MT1: goal visible, a new goal every episode) stepped in a plain loop.

    Each simulator draws goals from its own generator; `set_seed` seeds all N, so that equal seeds give equal goals
    in equal order, and different simulators different ones. The XML and meshes are compiled once and copied.

    Args:
        task: a `-v3` name.
        num_envs: N.
    """

    def __init__(self, task: str, num_envs: int):
        if num_envs < 1:
            raise GipoError(f"num_envs must be at least 1, got {num_envs}")
        super().__init__(batch_size=[num_envs])
        self.task = task
        self.simulators = _simulators(task, num_envs)
        size = self.simulators[0].sawyer_observation_space.shape[0]
        action_space = self.simulators[0].action_space
        low, high = torch.as_tensor(action_space.low), torch.as_tensor(action_space.high)
        shape = (num_envs,)
        self.observation_spec = Composite(
            observation=Unbounded((*shape, size)),
            success=Binary(1, shape=(*shape, 1), dtype=torch.bool),
            step=Unbounded((*shape, 1), dtype=torch.int64),
            shape=shape,
        )
        self.action_spec = Bounded(low.expand(*shape, -1), high.expand(*shape, -1), shape=(*shape, len(low)))
        self.reward_spec = Unbounded((*shape, 1))
        flag = Binary(1, shape=(*shape, 1), dtype=torch.bool)
        self.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=shape)
        self._observation = np.zeros((num_envs, size), np.float32)
        self._reward = np.zeros((num_envs, 1), np.float32)
        self._flags = np.zeros((3, num_envs, 1), bool)  # terminated, truncated, success
        self._steps = np.zeros((num_envs, 1), np.int64)

    def _set_seed(self, seed: int | None) -> None:
        sequences = np.random.SeedSequence(seed).spawn(len(self.simulators))
        for simulator, sequence in zip(self.simulators, sequences, strict=True):
            simulator.np_random = np.random.default_rng(sequence)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        chosen: Any = range(len(self.simulators))
        if tensordict is not None and "_reset" in tensordict.keys():
            chosen = tensordict["_reset"].flatten().nonzero().flatten().tolist()
        for index in chosen:
            self._observation[index] = self.simulators[index].reset()[0]
            self._steps[index] = 0
            self._flags[:, index] = False
        return self._tensordict(self._observe())

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        actions = tensordict["action"].numpy()
        for index, simulator in enumerate(self.simulators):
            observation, reward, terminated, truncated, info = simulator.step(actions[index])
            self._observation[index] = observation
            self._reward[index] = reward
            self._flags[0, index], self._flags[1, index], self._flags[2, index] = terminated, truncated, info["success"]
        self._steps += 1
        return self._tensordict(self._observe() | {"reward": torch.from_numpy(self._reward.copy())})

    def _observe(self) -> dict[str, torch.Tensor]:
        terminated, truncated, success = torch.from_numpy(self._flags.copy())
        return {
            "observation": torch.from_numpy(self._observation.copy()),
            "success": success,
            "step": torch.from_numpy(self._steps.copy()),
            "terminated": terminated,
            "truncated": truncated,
            "done": terminated | truncated,
        }

    def _tensordict(self, fields: dict[str, torch.Tensor]) -> TensorDict:
        return TensorDict._new_unsafe(fields, batch_size=self.batch_size)

    def close(self, **kwargs: Any) -> None:
        """Release the simulators."""
        for simulator in self.simulators:
            simulator.close()
        super().close(**kwargs)


def _simulators(task: str, count: int) -> list[Any]:
    base = ALL_V3_ENVIRONMENTS[task]
    first = base()

    class Copied(base):  # type: ignore[misc, valid-type]
        """The task with a copy of the model compiled once: MetaWorld moves bodies in the model itself."""

        def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
            model = copy.copy(compiled)
            return model, mujoco.MjData(model)

    compiled = copy.copy(first.model)
    simulators = [first, *(Copied() for _ in range(count - 1))]
    for simulator in simulators:
        # What MetaWorld's own goal-observable classes set, but with a fresh goal from `np_random` every episode.
        simulator.__dict__.pop("sawyer_observation_space", None)
        simulator._partially_observable = False
        simulator._freeze_rand_vec = False
        simulator.seeded_rand_vec = True
        simulator._set_task_called = True
        simulator._get_quat_objects = MethodType(_without_checks(base._get_quat_objects), simulator)
    return simulators


class _Rotation:
    """scipy's `Rotation` for MuJoCo's matrices; checking that they are rotations is a quarter of MetaWorld's step."""

    _trust = {"assume_valid": True} if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 17) else {}
    from_matrix = staticmethod(partial(Rotation.from_matrix, **_trust))


def _without_checks(method: FunctionType) -> FunctionType:
    """`method`, which finds `_Rotation` under the name of scipy's."""
    return FunctionType(method.__code__, method.__globals__ | {"Rotation": _Rotation}, closure=method.__closure__)


def _gymnasium_env(task: str, num_envs: int) -> EnvBase:
    if num_envs < 1:
        raise GipoError(f"num_envs must be at least 1, got {num_envs}")
    return SerialEnv(num_envs, partial(_single_gymnasium_env, task))


def _single_gymnasium_env(task: str) -> EnvBase:
    try:
        env = gymnasium.make(task)
    except Exception as error:  # whatever the environment's author raises, missing packages above all
        raise GipoError(f"gymnasium cannot make task {task!r}: {error}") from error
    for name, space in (("observation", env.observation_space), ("action", env.action_space)):
        if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
            raise GipoError(f"task {task!r} has the {name} space {space}; gipo needs a flat gymnasium.spaces.Box")
    return TransformedEnv(GymWrapper(env), DoubleToFloat()).append_transform(StepCounter(step_count_key="step"))
