"""MetaWorld's cameras for policies over chunks of actions: what is in the scene is seen, and told in no numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, TensorDict
from torchrl.data import Bounded, Composite, NonTensor, Unbounded

from datamodules.envs.batched import Outcome
from datamodules.envs.metaworld import MetaWorldEnv, environments
from datamodules.options import refuse_not_positive
from datamodules.vla import VLATask
from gipo.common.arrays.camera_images import Shape, joint, tensor_shape
from gipo.common.errors import UserError, nearest
from gipo.common.simulators.metaworld_camera import (
    CAMERA,
    PREFIX,
    SIZE,
    STATE,
    Camera,
    instruction_of,
    seen_interface,
    seen_task,
)


@dataclass(frozen=True)
class MetaWorldVLA(VLATask):
    """A MetaWorld task seen by its cameras; the state is the hand's position and the gripper.

    Args:
        name: of the task: `camera:` and a name of MetaWorld's, such as `camera:reach-v3`; or with cameras of MetaWorld
            between them, `camera:topview+gripperPOV:reach-v3`, each of which draws a picture before every decision.
        chunk: H, actions of a decision.
        size: height and width of a picture; or of several cameras one for each, such as [128, 64].
        max_steps: steps after which an episode is truncated; whole decisions.
    """

    name: str = f"{PREFIX}button-press-topdown-v3"
    chunk: int = 10
    size: int | tuple[int, ...] = SIZE
    max_steps: int = 150

    def __post_init__(self) -> None:
        sizes = {"chunk": self.chunk, "max_steps": self.max_steps, "size": min(self._sizes, default=0)}
        refuse_not_positive("data.task.", sizes)
        if not self.name.startswith(PREFIX) or self.task not in environments():
            known = [self.name[: -len(self.task)] + name for name in environments()] if self.task else []
            raise UserError(f"{self.name!r} is no MetaWorld task with a camera. Nearest: {nearest(self.name, known)}")
        limit = int(environments()[self.task].max_path_length)
        if self.max_steps % self.chunk or self.max_steps > limit:
            raise UserError(
                f"data.task.max_steps must be whole decisions of {self.chunk} steps, and at most {limit}, "
                f"got {self.max_steps}"
            )
        if len(set(self._drawn_by)) < len(self._drawn_by):
            raise UserError(f"{self.name!r} names a camera twice")
        if len(self._sizes) != len(self._drawn_by):
            cameras = ", ".join(self._drawn_by)
            raise UserError(f"data.task.size must be a number, or one for each of {cameras}, got {list(self._sizes)}")

    @property
    def cameras(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of several cameras, where there are several."""
        return self._drawn_by if len(self._drawn_by) > 1 else ()

    @property
    def images(self) -> tuple[Shape, ...]:  # type: ignore[override]
        """What each of several cameras of different sizes sees."""
        return tuple((3, size, size) for size in self._sizes) if len(set(self._sizes)) > 1 else ()

    @property
    def task(self) -> str:
        """MetaWorld's name of it."""
        return seen_task(self.name)[0]

    @property
    def _drawn_by(self) -> tuple[str, ...]:
        return seen_task(self.name)[1]

    @property
    def _sizes(self) -> tuple[int, ...]:
        """Height and width of the picture of each camera."""
        return (self.size,) * len(self._drawn_by) if isinstance(self.size, int) else tuple(self.size)

    def simulators(self, num_envs: int, evaluating: bool) -> "MetaWorldCameraEnv":
        """Simulators that share a compiled model, and what draws them; evaluation has them too."""
        return MetaWorldCameraEnv(self.task, num_envs, self._drawn_by, self._sizes, self.chunk)

    @property
    def interface(self) -> dict[str, Any]:
        """Names, units and rate of what the arm knows of itself, and of the actions."""
        return seen_interface()


def find(name: str) -> MetaWorldVLA | None:
    """The MetaWorld task of this name with a camera, where it asks for one.

    Raises:
        UserError: when there is no such task.
    """
    return MetaWorldVLA(name) if name.startswith(PREFIX) else None


class MetaWorldCameraEnv(MetaWorldEnv):
    """N simulators of one MetaWorld task with TorchRL's VLA keys, drawn by its cameras.

    `observation/image` has the latest pictures of K cameras, [N, 3·K, H, W] uint8, or [N, P] of different sizes;
    `observation/state` [N, 4] f32 the hand and the gripper, `language_instruction` the task's name in words,
    `privileged` [N, 35] f32 the rest of MetaWorld's observation: where objects and goal are. All simulators step,
    whatever `_step` says.

    Args:
        task: a `-v3` name.
        num_envs: N.
        cameras: of MetaWorld's.
        sizes: height and width of the picture of each.
        every: steps from one picture to the next; the first is of the start.
    """

    def __init__(
        self,
        task: str,
        num_envs: int,
        cameras: Sequence[str] = (CAMERA,),
        sizes: Sequence[int] = (SIZE,),
        every: int = 1,
    ):
        super().__init__(task, num_envs, seen=True)
        self.every, self._words = every, instruction_of(task)
        drawn = zip(cameras, sizes, strict=True)
        self._cameras = [Camera(self.simulators[0].model, camera, size) for camera, size in drawn]
        self._images = np.zeros((num_envs, *tensor_shape(joint([(3, size, size) for size in sizes]))), np.uint8)
        seen = Composite(
            image=Bounded(0, 255, self._images.shape, dtype=torch.uint8),
            state=Unbounded((num_envs, STATE)),
            shape=(num_envs,),
        )
        del self.observation_spec["observation"]
        words = NonTensor((num_envs,), example_data=self._words)
        hidden = Unbounded((num_envs, self._observation.shape[1] - STATE))
        more = {"observation": seen, "language_instruction": words, "privileged": hidden}
        self.observation_spec = self.observation_spec.update(more)

    def whole(self, index: int) -> np.ndarray:
        """All that MetaWorld says of simulator `index`, [39] f32: what a script goes by."""
        return self._observation[index].copy()

    def _begin(self, index: int) -> np.ndarray:
        found = super()._begin(index)
        self._draw(index)
        return found

    def _advance(self, index: int, action: np.ndarray) -> Outcome:
        outcome = super()._advance(index, action)
        if (int(self._steps[index, 0]) + 1) % self.every == 0:
            self._draw(index)
        return outcome

    def _draw(self, index: int) -> None:
        simulator = self.simulators[index]
        pictures = [camera.picture(simulator.model, simulator.data) for camera in self._cameras]
        pixels = np.concatenate([picture.transpose(2, 0, 1).ravel() for picture in pictures])
        self._images[index] = pixels.reshape(self._images.shape[1:])

    def _observe(self) -> dict[str, Any]:
        found: dict[str, Any] = super()._observe()
        seen = {"image": torch.from_numpy(self._images.copy()), "state": found["observation"][:, :STATE]}
        more = {"observation": TensorDict(seen, self.batch_size), "privileged": found["observation"][:, STATE:].clone()}
        return found | more | {"language_instruction": NonTensorData(self._words, batch_size=self.batch_size)}

    def close(self, **kwargs: Any) -> None:
        """Release the cameras, and the simulators of all places."""
        for camera in self._cameras:
            camera.close()
        super().close(**kwargs)
