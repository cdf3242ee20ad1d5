"""Simulators of one process behind one environment: a plain loop into preallocated arrays, one TensorDict a step."""

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase


class Outcome(NamedTuple):
    """What one simulator answers to an action; the observation is [O]."""

    observation: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    success: bool


class FlatEnv(EnvBase):
    """N simulators with flat observations and bounded actions; a subclass says how they begin and step.

    Args:
        num_envs: N.
        observation_size: O.
        low: lower bounds of an action [D].
        high: upper bounds of an action [D].
    """

    def __init__(self, num_envs: int, observation_size: int, low: np.ndarray, high: np.ndarray):
        super().__init__(batch_size=[num_envs])
        shape = (num_envs,)
        self.observation_spec = Composite(
            observation=Unbounded((*shape, observation_size)),
            success=Binary(1, shape=(*shape, 1), dtype=torch.bool),
            step=Unbounded((*shape, 1), dtype=torch.int64),
            shape=shape,
        )
        bounds = (torch.as_tensor(bound, dtype=torch.float32).expand(*shape, -1) for bound in (low, high))
        self.action_spec = Bounded(*bounds, shape=(*shape, len(low)))
        self.reward_spec = Unbounded((*shape, 1))
        flag = Binary(1, shape=(*shape, 1), dtype=torch.bool)
        self.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=shape)
        self._observation = np.zeros((num_envs, observation_size), np.float32)
        self._reward = np.zeros((num_envs, 1), np.float32)
        self._flags = np.zeros((3, num_envs, 1), bool)  # terminated, truncated, success
        self._steps = np.zeros((num_envs, 1), np.int64)

    @abstractmethod
    def _begin_episodes(self, chosen: np.ndarray | None) -> None:
        """Begin an episode in the simulators `chosen` [M], or in all, and write what they observe."""

    @abstractmethod
    def _advance_all(self, actions: np.ndarray) -> None:
        """Step every simulator by its action [N, D] f32, and write what it answers."""

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        chosen = None
        if tensordict is not None and "_reset" in tensordict.keys():
            chosen = tensordict["_reset"].flatten().numpy().nonzero()[0]
        self._begin_episodes(chosen)
        begun = slice(None) if chosen is None else chosen
        self._steps[begun] = 0
        self._flags[:, begun] = False
        return self._tensordict(self._observe())

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        self._advance_all(tensordict["action"].numpy())
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


class BatchedEnv(FlatEnv):
    """N simulators in Python, stepped one after another; a kind of simulator says how one begins and steps."""

    @abstractmethod
    def _begin(self, index: int) -> np.ndarray:
        """Begin an episode in simulator `index`: its first observation [O]."""

    @abstractmethod
    def _advance(self, index: int, action: np.ndarray) -> Outcome:
        """Step simulator `index` by `action` [D] f32."""

    def _begin_episodes(self, chosen: np.ndarray | None) -> None:
        for index in range(self.batch_size[0]) if chosen is None else chosen.tolist():
            self._observation[index] = self._begin(index)

    def _advance_all(self, actions: np.ndarray) -> None:
        for index, action in enumerate(actions):
            answer = self._advance(index, action)
            self._observation[index] = answer.observation
            self._reward[index] = answer.reward
            self._flags[:, index, 0] = answer.terminated, answer.truncated, answer.success
