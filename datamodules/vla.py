"""Vision-language-action tasks: environments with TorchRL's VLA keys, whose decisions are chunks of actions."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.data import Bounded, Unbounded
from torchrl.envs import EnvBase, Transform, TransformedEnv
from torchrl.envs.custom import ToyVLAEnv

from datamodules.envs.action_chunks import ChunkEnv
from datamodules.envs.interface import named
from datamodules.envs.simulation import SeededSimulation
from datamodules.options import refuse_not_positive
from gipo.common.arrays.camera_images import Shape, joint, tensor_shape
from gipo.common.errors import UserError
from gipo.common.simulators.toy import CAMERA, CAMERAS, pictures
from gipo.vla.observations import VLASpaces


class VLATask(SeededSimulation):
    """A task with TorchRL's VLA keys: what it simulates is for subclasses to say, the chunks are the same for all."""

    chunk: int
    max_steps: int
    cameras: tuple[str, ...] = ()  # of several, their names in the order of their channels in the image
    images: tuple[Shape, ...] = ()  # of cameras of different sizes: channels, height and width of what each sees

    @abstractmethod
    def simulators(self, num_envs: int, evaluating: bool) -> EnvBase:
        """`num_envs` simulators, batch size [num_envs], that honour the `_step` mask; one action a step.

        Where a benchmark lays down episodes and `evaluating` is set, they are those.
        """

    @property
    def horizon(self) -> int | None:
        """Decisions after which an episode is truncated: the chunks that `max_steps` steps take."""
        return -(-self.max_steps // self.chunk)

    def environment(self, num_envs: int, evaluating: bool) -> ChunkEnv:
        """The task's simulators, stepped by chunks."""
        return ChunkEnv(self.simulators(num_envs, evaluating), self.chunk, self.max_steps)

    def spaces(self, env: EnvBase) -> Any:
        """Sizes of image, state and chunk, and bounds of an action, read off the specs of `env`."""
        seen, action = env.observation_spec["observation"], env.action_spec
        return VLASpaces(
            self.images or tuple(seen["image"].shape[1:]),
            seen["state"].shape[-1],
            tuple(action.space.low[0, 0].tolist()),
            tuple(action.space.high[0, 0].tolist()),
            self.chunk,
            cameras=self.cameras,
        )


@dataclass(frozen=True)
class ToyVLA(VLATask):
    """TorchRL's `ToyVLAEnv` in tracking mode: hold a target that the state or the image shows.

    The target is `privileged`: a critic may be told it.

    Args:
        shown: where the target is: in the `state`, beside an image of noise; or in the `image` alone, of two actions;
            or in `two_images` of two cameras, each of which shows one of the actions and not the other; or in
            `two_sizes`, where the second of them has three quarters of the height and half of the width.
        chunk: H, actions of a decision.
        success_steps: consecutive steps within tolerance that succeed, and end the episode.
        success_tol: largest distance from the target in any dimension.
        max_steps: steps after which an episode is truncated.
        action_dim: D.
        image_size: height and width of the image.
    """

    chunk: int = 4
    success_steps: int = 4
    success_tol: float = 0.25
    max_steps: int = 16
    action_dim: int = 2
    image_size: int = 16
    shown: Literal["state", "image", "two_images", "two_sizes"] = "state"
    name = "ToyVLA"

    def __post_init__(self) -> None:
        sizes = ("chunk", "success_steps", "max_steps", "action_dim", "image_size", "success_tol")
        refuse_not_positive("data.task.", {name: getattr(self, name) for name in sizes})
        if self.success_tol > 0.5:
            raise UserError(f"data.task.success_tol must be at most 0.5, got {self.success_tol}")
        if self.shown != "state" and self.action_dim != 2:
            raise UserError(f"data.task.shown={self.shown} has images of two actions, got action_dim {self.action_dim}")

    @property
    def cameras(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of two cameras, where there are two."""
        return CAMERAS if self.shown.startswith("two") else ()

    @property
    def images(self) -> tuple[Shape, ...]:  # type: ignore[override]
        """What two cameras of different sizes see."""
        return tuple((3, *size) for size in self._sizes) if self.shown == "two_sizes" else ()

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        """Height and width of the image of each camera."""
        size = self.image_size
        second = (max(1, 3 * size // 4), max(1, size // 2)) if self.shown == "two_sizes" else (size, size)
        return [(size, size), second][: max(1, len(self.cameras))]

    def simulators(self, num_envs: int, evaluating: bool) -> EnvBase:
        """TorchRL's toy environment of batch size [num_envs], a batch by itself; evaluation has it too."""
        env = ToyVLAEnv(
            self.action_dim,
            2 * self.action_dim,
            (3, self.image_size, self.image_size),
            success_steps=self.success_steps,
            success_tol=self.success_tol,
            batch_size=[num_envs],
        )
        told = TransformedEnv(env, _Target(self.action_dim))
        if self.shown == "state":
            return told
        sizes = dict(zip(self.cameras or (CAMERA,), self._sizes, strict=True))
        return told.append_transform(_Shown(self.action_dim, sizes))

    @property
    def interface(self) -> dict[str, Any]:
        """Names and units: the state is the last action and, where it shows it, the target; there is no true rate."""
        actions, targets = ({f"{part}_{axis}": "1" for axis in range(self.action_dim)} for part in ("action", "target"))
        return named(actions | (targets if self.shown == "state" else {}), actions)


class _Target(Transform):
    """Says the target, which stands in the state, as what is privileged.

    Args:
        actions: D, of which the state has as many of the last action and of the target.
    """

    def __init__(self, actions: int):
        super().__init__(in_keys=["observation"])
        self._actions = actions

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        return next_tensordict.set("privileged", next_tensordict["observation", "state"][..., self._actions :].clone())

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: Any) -> Any:
        """The target is as large as an action."""
        state = observation_spec["observation", "state"]
        observation_spec["privileged"] = Unbounded((*state.shape[:-1], self._actions), dtype=state.dtype)
        return observation_spec


class _Shown(Transform):
    """Takes the target out of the state, and shows it in the image, with the action that was executed last.

    Args:
        actions: D, of which the state has as many of the last action and of the target.
        cameras: height and width of the image of each, by its name.
    """

    def __init__(self, actions: int, cameras: Mapping[str, tuple[int, int]]):
        super().__init__(in_keys=["observation"])
        self._actions, self._cameras = actions, cameras
        self._shape = tensor_shape(joint([(3, *size) for size in cameras.values()]))

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        seen = next_tensordict["observation"]
        last, target = seen["state"].split(self._actions, -1)
        shown = pictures(self._cameras, target.numpy(), last.numpy())
        pixels = [seen.transpose(0, 3, 1, 2).reshape(len(seen), -1) for seen in shown.values()]
        image = torch.from_numpy(np.concatenate(pixels, -1)).unflatten(-1, self._shape)
        return next_tensordict.set("observation", seen.clone(False).update({"image": image, "state": last}))

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: Any) -> Any:
        """The state loses the target, and the image is that of all cameras."""
        image = Bounded(0, 255, (*observation_spec.shape, *self._shape), dtype=torch.uint8)
        observation_spec["observation", "image"] = image
        state = observation_spec["observation", "state"]
        observation_spec["observation", "state"] = Unbounded((*state.shape[:-1], self._actions), dtype=state.dtype)
        return observation_spec
