"""LIBERO seen by cameras: TorchRL's `LiberoEnv`, one simulator a process.

Needs an offscreen OpenGL: `apt-get install libgl1 libegl1 libegl-mesa0 libgl1-mesa-dri` where there is no GPU.
"""

import contextlib
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.envs import CatTensors, EnvBase, LiberoEnv, ParallelEnv, TransformedEnv

from datamodules.envs.libero import graphics
from datamodules.envs.libero.simulator import SETTLE, quieten, release_gripper
from datamodules.envs.libero.tasks import LiberoTask, find_one
from datamodules.envs.seeding import episode_seed
from datamodules.envs.simulation import refuse_no_simulators
from gipo.common.errors import UserError

WRIST = "robot0_eye_in_hand"
_open: list["LiberoCameraEnv"] = []  # in this process


class LiberoCameraEnv(LiberoEnv):
    """TorchRL's environment of one task, with the benchmark's initial states as the installed package keeps them.

    Images are right side up: `observation/image` and `observation/wrist_image` [3, H, W] uint8; `observation/state` [9]
    f32 is the hand's position, orientation and fingers. The reward is 1 at success, which terminates.

    Args:
        task: what to simulate.
        size: height and width of the images.
        place: of this environment among those that share the initial states.
        places: how many share them.
        evaluating: take the initial states in order: that of the episode's number (`begin_episode`), else every
            `places`-th from the `place`-th on; draw them if not.
        wrist: draw what the camera at the wrist sees, too.

    Raises:
        UserError: when this process already has one: closing either would freeze the images of the other.
    """

    def __init__(
        self,
        task: LiberoTask,
        size: int = 256,
        place: int = 0,
        places: int = 1,
        evaluating: bool = False,
        wrist: bool = True,
    ):
        if _open:
            raise UserError(
                "this process already has a LIBERO camera environment, and closing one would freeze the images of the "
                "other; close it first, or take several from datamodules.envs.libero.cameras.make: each gets a process"
            )
        graphics.refuse_none()
        self._place, self._places = place, places
        self._number: int | None = None  # of the episode that the next reset begins, where it has one
        super().__init__(
            task.suite,
            task.index,
            camera_height=size,
            camera_width=size,
            wrist_camera=WRIST if wrist else None,
            init_states=task.init_states(),
            init_state_mode="cycle" if evaluating else "random",
            max_episode_steps=task.horizon,
            settle_steps=SETTLE,
            env_kwargs={"hard_reset": False},
        )
        _open.append(self)

    def begin_episode(self, numbers: Sequence[int], seed: int) -> None:
        """The next reset begins the episode numbers[place] of the evaluation with this seed."""
        self._number = numbers[self._place]
        self.set_seed(episode_seed(seed, self._number))

    def _select_init_state(self) -> np.ndarray:
        number, self._number = self._number, None
        if self.init_state_mode != "cycle":
            return super()._select_init_state()
        number = self._place + self._places * self._episode_count if number is None else number
        return self.init_states[number % len(self.init_states)]

    def _reset(self, tensordict: TensorDictBase | None = None, **options: Any) -> TensorDictBase:
        release_gripper(self._env)
        return super()._reset(tensordict, **options)

    def close(self, **options: Any) -> None:
        """Close the renderer; another environment may be opened afterwards."""
        if self in _open:
            _open.remove(self)
        super().close(**options)


class Cameras(ParallelEnv):
    """N LIBERO camera environments of one task, each in a process of its own."""

    def begin_with(self, numbers: Sequence[int], seed: int) -> None:
        """The next full reset begins these episodes of the evaluation with this seed."""
        if self.is_closed:
            self.start()
        self.begin_episode(list(numbers), seed)  # of every process


def make(
    name: str, num_envs: int, size: int = 256, evaluating: bool = False, wrist: bool = True, joined: bool = False
) -> Cameras:
    """`num_envs` camera environments of one task, each in a process of its own, batch size [num_envs].

    Keys are TorchRL's canonical ones for vision-language-action policies: `observation` (`image`, with `wrist` a
    `wrist_image`, `state`), `language_instruction`, `success`; with `joined`, `image` has the channels of both cameras.

    Raises:
        UserError: when `name` is no task, or several.
    """
    refuse_no_simulators(num_envs)
    task = find_one(name)
    graphics.refuse_none()
    made = partial(_camera, joined, task, size)
    places = [partial(made, place, num_envs, evaluating, wrist) for place in range(num_envs)]
    return Cameras(num_envs, places, mp_start_method="spawn", serial_for_single=False, metadata_from_workers=True)


def with_both(env: EnvBase) -> TransformedEnv:
    """A single environment whose `image` is that of the scene and that of the wrist, one after the other.

    Of several, each needs its own: a step of some of them leaves the others' images as they are, joined already.
    """
    images = [("observation", name) for name in ("image", "wrist_image")]
    return TransformedEnv(env, CatTensors(images, images[0], dim=-3, del_keys=False))


def _camera(joined: bool, *arguments: Any) -> EnvBase:
    torch.set_num_threads(1)
    quieten()
    # LIBERO tells of its order of tasks, too.
    with contextlib.redirect_stdout(io.StringIO()):
        env = LiberoCameraEnv(*arguments)
    return with_both(env) if joined else env
