"""LIBERO's cameras, through TorchRL's `LiberoEnv`, for policies over chunks of actions. Needs `gipo[libero]`."""

import contextlib
import importlib.util
import io
import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torchrl.envs import EnvBase, LiberoEnv, ParallelEnv

from datamodules.options import refuse_not_positive
from datamodules.vla import VLATask
from gipo.errors import GipoError

CONTROL_RATE_HZ = 20.0


@dataclass(frozen=True)
class LiberoVLA(VLATask):
    """A LIBERO task seen by its camera, its state and its instruction; every simulator is a process of its own.

    Args:
        suite: such as `libero_spatial`, `libero_object`, `libero_goal`, `libero_10`.
        index: of the task within it.
        chunk: H, actions of a decision.
        size: height and width of the image.
        max_steps: steps after which an episode is truncated.
    """

    suite: str = "libero_spatial"
    index: int = 0
    chunk: int = 8
    size: int = 128
    max_steps: int = 220

    def __post_init__(self) -> None:
        sizes = ("chunk", "size", "max_steps")
        refuse_not_positive("data.task.", {name: getattr(self, name) for name in sizes})

    @property
    def name(self) -> str:  # type: ignore[override]
        """The suite and the number of the task."""
        return f"{self.suite}/{self.index}"

    def simulators(self, num_envs: int, seed: int) -> EnvBase:
        """Processes of one simulator each: closing one of two cameras in a process freezes the other's images."""
        # Read when mujoco is imported, which the processes do.
        os.environ.setdefault("MUJOCO_GL", "egl")
        make = partial(_camera, self.suite, self.index, self.size, self.max_steps)
        if importlib.util.find_spec("libero") is None:
            raise GipoError("LIBERO tasks need libero: pip install 'gipo[libero]'")
        return ParallelEnv(num_envs, make, mp_start_method="spawn", serial_for_single=False, metadata_from_workers=True)

    @property
    def interface(self) -> dict[str, Any]:
        """The hand's pose and the fingers; an action of 1 asks for 5 cm or half a radian."""
        state = {f"hand_{axis}": "m" for axis in "xyz"} | {f"hand_q{index}": "1" for index in range(4)}
        state |= {"finger_1": "m", "finger_2": "m"}
        action = {f"hand_d{axis}": "5 cm" for axis in "xyz"} | {f"hand_turn_{axis}": "0.5 rad" for axis in "xyz"}
        action |= {"gripper": "1"}
        return {
            "observation_names": list(state),
            "observation_units": list(state.values()),
            "action_names": list(action),
            "action_units": list(action.values()),
            "control_rate_hz": CONTROL_RATE_HZ,
        }


def _camera(suite: str, index: int, size: int, max_steps: int) -> EnvBase:
    torch.set_num_threads(1)
    # It advises users of robosuite, and LIBERO tells of its order of tasks; ours must stay readable.
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        return _open(suite, index, size, max_steps)


def _open(suite: str, index: int, size: int, max_steps: int) -> EnvBase:
    return _Camera(
        suite,
        index,
        camera_height=size,
        camera_width=size,
        max_episode_steps=max_steps,
        env_kwargs={"hard_reset": False},  # the model is compiled once, not for every episode
    )


class _Camera(LiberoEnv):
    """TorchRL's environment, with initial states read as the installed LIBERO keeps them."""

    @staticmethod
    def _load_init_states(suite: Any, task: Any) -> np.ndarray:
        states: np.ndarray = suite.get_task_init_states(suite.tasks.index(task))
        return states
