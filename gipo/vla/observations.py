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

from gipo.common.errors import UserError
from gipo.policies import Spaces

INSTRUCTION_BYTES = 128


@dataclass(frozen=True)
class VLASpaces:
    """Sizes and bounds a vision-language-action policy is built for.

    An observation is a mapping of `image` [..., *image] uint8, `state` [..., state_size] f32 and `instruction`
    [..., instruction_bytes] int64.

    Args:
        image: channels, height and width of the camera image; the channels of several cameras stand one after another.
        state_size: size of the proprioceptive state.
        action_low: lower bound of each of the D action dimensions, environment units.
        action_high: upper bound of each.
        chunk: H, actions of a decision, executed one after another.
        instruction_bytes: length of an encoded instruction.
        cameras: their names, in the order of their channels; empty for one that needs none.
    """

    taken_by: ClassVar[str] = "gipo.vla.policies.VLATokenPolicy or .VLAGaussianPolicy, which see images"
    image: tuple[int, int, int]
    state_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    chunk: int
    instruction_bytes: int = INSTRUCTION_BYTES
    cameras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(map(int, self.image)))
        object.__setattr__(self, "cameras", tuple(self.cameras))
        bounds = Spaces(self.state_size, self.action_low, self.action_high)
        object.__setattr__(self, "action_low", bounds.action_low)
        object.__setattr__(self, "action_high", bounds.action_high)
        if len(self.image) != 3 or prod(self.image) < 1 or self.chunk < 1 or self.instruction_bytes < 1:
            raise UserError(
                f"a policy needs images [channels, height, width] and chunks of at least 1 action, got {self}"
            )
        if len(set(self.cameras)) < len(self.cameras) or self.image[0] % max(1, len(self.cameras)):
            raise UserError(f"cameras need names of their own and as many channels each, got {self}")

    @property
    def decision(self) -> tuple[int, ...]:
        """Shape of what a policy decides at once: (H, D)."""
        return (self.chunk, len(self.action_low))

    @property
    def observation_size(self) -> int:
        """Numbers of an observation that have units, and that a policy standardises: the state."""
        return self.state_size


def flattened(observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Image [B, C, H, W], state [B, S] and instruction [B, L] of observations [..., *], as one batch."""
    own = {"image": 3, "state": 1, "instruction": 1}  # dimensions of each alone
    image, state, instruction = (observation[name].flatten(0, -1 - count) for name, count in own.items())
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
