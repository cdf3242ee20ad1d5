"""What a vision-language-action policy sees: a camera image, an instruction and the robot's own state.

An instruction travels as its UTF-8 bytes, padded with zeros to a fixed length, so that no strings lie in a replay
buffer or an artifact, and whatever tokenizer a policy has can be applied to the very words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from gipo.common.arrays.camera_images import Image, Shape, each_shape, tensor_shape
from gipo.common.errors import UserError
from gipo.policies import Spaces

INSTRUCTION_BYTES = 128


@dataclass(frozen=True)
class VLASpaces:
    """Sizes and bounds a vision-language-action policy is built for.

    An observation is a mapping of `image` [..., *image_shape] uint8, `state` [..., state_size] f32 and `instruction`
    [..., instruction_bytes] int64.

    Args:
        image: channels, height and width of the camera image; the channels of several cameras stand one after another.
            Of cameras of different sizes, channels, height and width of each.
        state_size: size of the proprioceptive state.
        action_low: lower bound of each of the D action dimensions, environment units.
        action_high: upper bound of each.
        chunk: H, actions of a decision, executed one after another.
        instruction_bytes: length of an encoded instruction.
        cameras: their names, in the order of their channels; empty for one that needs none.
    """

    taken_by: ClassVar[str] = "gipo.vla.policies.VLATokenPolicy or .VLAGaussianPolicy, which see images"
    image: Image
    state_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    chunk: int
    instruction_bytes: int = INSTRUCTION_BYTES
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        apart = not all(isinstance(size, int) for size in self.image)
        shapes = [tuple(map(int, shape)) for shape in (self.image if apart else [self.image])]  # type: ignore[arg-type]
        object.__setattr__(self, "image", tuple(shapes) if apart else shapes[0])
        object.__setattr__(self, "cameras", tuple(self.cameras))
        bounds = Spaces(self.state_size, self.action_low, self.action_high)
        object.__setattr__(self, "action_low", bounds.action_low)
        object.__setattr__(self, "action_high", bounds.action_high)
        sizes_fit = all(len(shape) == 3 and min(shape) >= 1 for shape in shapes)
        if not sizes_fit or self.chunk < 1 or self.instruction_bytes < 1:
            raise UserError(
                f"a policy needs images [channels, height, width] and chunks of at least 1 action, got {self}"
            )
        fit = len(shapes) == len(self.cameras) if apart else shapes[0][0] % max(1, len(self.cameras)) == 0
        if len(set(self.cameras)) < len(self.cameras) or not fit:
            named = ", ".join(self.cameras)
            raise UserError(f"cameras need names of their own and as many channels each, got {named} of {self.image}")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the images of all cameras in one tensor, as `gipo.common.arrays.camera_images` has them."""
        return tensor_shape(self.image)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Channels, height and width of what each camera sees."""
        return each_shape(self.image, max(1, len(self.cameras)))

    def apart(self, image: Tensor) -> list[Tensor]:
        """What each camera sees, [..., C, H, W], of the images of all [..., *image_shape]."""
        return apart(image.flatten(-len(self.image_shape)), self.shapes)

    def together(self, images: Sequence[Tensor]) -> Tensor:
        """The images of all cameras [..., *image_shape], of what each sees [..., C, H, W]."""
        pixels = torch.cat([each.flatten(-3) for each in images], -1)
        return pixels.unflatten(-1, self.image_shape)

    def blank(self) -> dict[str, Tensor]:
        """A batch of one observation: a grey image, a state of zeros and no words."""
        return {
            "image": torch.full((1, *self.image_shape), 128, dtype=torch.uint8),
            "state": torch.zeros(1, self.state_size),
            "instruction": torch.zeros(1, self.instruction_bytes, dtype=torch.int64),
        }

    @property
    def decision(self) -> tuple[int, ...]:
        """Shape of what a policy decides at once: (H, D)."""
        return (self.chunk, len(self.action_low))

    @property
    def observation_size(self) -> int:
        """Numbers of an observation that have units, and that a policy standardises: the state."""
        return self.state_size


def apart(pixels: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Images [..., C, H, W] of these shapes, of the pixels [..., P] of all."""
    parts = pixels.split([prod(shape) for shape in shapes], -1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def flattened(observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Images [B, *image_shape], state [B, S] and instruction [B, L] of observations [..., *], as one batch."""
    last = observation["state"].dim() - 2  # dimension of the batch
    image, state, instruction = (observation[name].flatten(0, last) for name in ("image", "state", "instruction"))
    return image, state, instruction


def encode_instructions(texts: Sequence[str], length: int = INSTRUCTION_BYTES) -> Tensor:
    """UTF-8 bytes of each text, [len(texts), length] int64, zeros after the end.

    Raises:
        UserError: a text is longer.
    """
    encoded = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        data = text.encode()
        if len(data) > length:
            raise UserError(f"the instruction {text!r} has {len(data)} bytes, {length} are kept; shorten it")
        encoded[row, : len(data)] = torch.tensor(list(data))
    return encoded


def decode_instructions(encoded: Tensor) -> list[str]:
    """The texts of [B, length] int64."""
    return [bytes(row).rstrip(b"\0").decode() for row in encoded.tolist()]
