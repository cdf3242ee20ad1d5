"""Whether the task is done, as the `info` of a Gymnasium environment has it."""

from typing import Any

import gymnasium
import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.data import Binary, Composite
from torchrl.envs.gym_like import BaseInfoDictReader

from gipo.common.errors import UserError
from gipo.common.simulators.gymnasium_info import is_number, is_truth, said_of_success, warn_of_late_success


def tells_success(env: gymnasium.Env) -> bool:
    """Whether the `info` of a step says if the task is done. It is reset, and one step is taken: nothing else tells."""
    env.reset(seed=0)
    *_, info = env.step(np.clip(np.zeros_like(env.action_space.low), env.action_space.low, env.action_space.high))
    return is_number(said_of_success(info))


class LateSuccess(BaseInfoDictReader):
    """Says once that an `info` tells of success though the first step's told nothing: it is not counted.

    Args:
        task: id, for what is said.
    """

    def __init__(self, task: str):
        self._task = task

    @property
    def info_spec(self) -> Composite:
        """Nothing is read."""
        return Composite()

    def __call__(self, info_dict: dict[str, Any], tensordict: TensorDictBase) -> TensorDictBase:
        """Look at a step."""
        warn_of_late_success(info_dict, self._task)
        return tensordict


class SuccessReader(BaseInfoDictReader):
    """`success` [1] of a step, false where its `info` says nothing of it, as most have it at a reset.

    Args:
        task: id, for what is refused.
    """

    def __init__(self, task: str):
        self._task = task
        self._spec = Composite(success=Binary(1, shape=(1,), dtype=torch.bool))

    @property
    def info_spec(self) -> Composite:
        """What `success` is."""
        return self._spec

    def __call__(self, info_dict: dict[str, Any], tensordict: TensorDictBase) -> TensorDictBase:
        """Write the success that `info_dict` tells of into a step.

        Raises:
            UserError: when it is neither true nor false.
        """
        said = said_of_success(info_dict)
        if said is not None and not is_truth(said):
            raise UserError(f"task {self._task!r}: the success of `info` is true or false, got {said!r}")
        return tensordict.set("success", torch.tensor([bool(said)]))
