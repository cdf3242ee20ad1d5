"""How a policy's inputs and outputs lie in a graph: flat rows outside, named tensors inside.

Everything that asks a policy works on rows: an observation is [R] float32, a decision's noise, latents and log-probs
[K]. For a flat policy these are the graph's own inputs and outputs, R = O and K = D. For one that sees a camera and
decides on chunks of H actions a row is the state, the image's pixels and the instruction's bytes, one after another,
all of which float32 holds exactly, and K = H·D.

A golden vector does not spell out its pixels, which would fill megabytes of a manifest: a number stands for a picture
that every machine draws alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from deploy.runtime.validation import check_whole, is_text, require
from gipo.common.arrays.camera_images import Image, Shape, each_shape, tensor_shape

MAX_PIXELS = 3 * 1024 * 1024
MAX_CHUNK, MAX_INSTRUCTION = 1024, 4096
MAX_PICTURE = 1 << 16


@dataclass(frozen=True)
class Vision:
    """What a policy sees and decides beyond one vector and one action.

    Args:
        image: channels, height and width of the camera image; the graph's input `image` is [B, *image] uint8. That of
            several cameras has the channels of all, one camera after another. Of cameras of different sizes, channels,
            height and width of each; the input is [B, P] uint8, of all pixels of one after those of another.
        instruction_bytes: length of `instruction` [B, instruction_bytes] int64, UTF-8 bytes with zeros after the end.
        chunk: H, actions of a decision; the graph's noise and outputs are [B, H, D].
        cameras: their names, in the order of their channels; empty for one that needs none.
    """

    image: Image
    instruction_bytes: int
    chunk: int
    cameras: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse sizes that a manifest may not have.

        Raises:
            UserError: naming the size and what it must be.
        """
        image: Any = self.image
        apart = isinstance(image, tuple) and any(isinstance(each, tuple) for each in image)
        for shape in image if apart else (image,):
            good = isinstance(shape, tuple) and len(shape) == 3
            require(good, "vision.image", self.image, "channels, height and width, or those of each camera")
            for i, size in enumerate(shape):
                check_whole(f"vision.image[{i}]", size, 1)
        check_whole("vision.chunk", self.chunk, 1)
        check_whole("vision.instruction_bytes", self.instruction_bytes, 1)
        named = isinstance(self.cameras, tuple) and all(map(is_text, self.cameras))
        fits = named and len(set(self.cameras)) == len(self.cameras)
        share = len(image) == len(self.cameras) if apart else image[0] % max(1, len(self.cameras)) == 0
        allowed = "names that differ from each other, of as many channels each"
        require(fits and share, "vision.cameras", self.cameras, allowed)
        allowed = f"at most {MAX_PIXELS} pixels, {MAX_CHUNK} actions and {MAX_INSTRUCTION} bytes"
        small = self.chunk <= MAX_CHUNK and self.instruction_bytes <= MAX_INSTRUCTION
        require(small and self.pixels <= MAX_PIXELS, "vision", self, allowed)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the graph's input `image`, without its batch."""
        return tensor_shape(self.image)

    @property
    def pixels(self) -> int:
        """P, the numbers of all that is seen."""
        return prod(self.image_shape)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Height, width and channels of the image of each camera, as it gives them."""
        return tuple((h, w, c) for c, h, w in each_shape(self.image, max(1, len(self.cameras))))

    def row(self, images: "np.ndarray | Mapping[str, np.ndarray]") -> np.ndarray:
        """Pixels [P] of the images of all cameras, in the order of their names; of one size they may be one [H, W, C].

        Raises:
            ValueError: when one is missing, or of another size.
        """
        if isinstance(images, np.ndarray):
            if len(self.image_shape) == 1:
                raise ValueError("the policy sees cameras of different sizes; give the image of each by its name")
            channels, height, width = self.image_shape
            if images.shape != (height, width, channels) or images.dtype != np.uint8:
                allowed = f"{(height, width, channels)} uint8"
                raise ValueError(f"the image is {images.shape} {images.dtype}; it must be {allowed}")
            return images.transpose(2, 0, 1).ravel()
        if not self.cameras:
            raise ValueError("the policy's camera has no name; give its image alone, as one array")
        for camera, shape in zip(self.cameras, self.shapes, strict=True):
            if camera not in images:
                there = ", ".join(images) or "none"
                raise ValueError(f"the policy sees the camera {camera!r}, and there is no image of it; of: {there}")
            found = images[camera]
            if found.shape != shape or found.dtype != np.uint8:
                what = f"{found.shape}" if found.shape != shape else f"{shape} {found.dtype}"
                raise ValueError(f"the image of the camera {camera!r} is {what}; it must be {shape} uint8")
        return np.concatenate([images[camera].transpose(2, 0, 1).ravel() for camera in self.cameras])


@dataclass(frozen=True)
class Layout:
    """How flat rows outside become the named tensors of the graph, and back.

    Args:
        observation_size: O.
        action_size: D.
        vision: what else there is, if anything.
    """

    observation_size: int
    action_size: int
    vision: Vision | None = None

    @property
    def decision(self) -> tuple[int, ...]:
        """Shape of a decision: (D,) or (H, D)."""
        return (self.action_size,) if self.vision is None else (self.vision.chunk, self.action_size)

    @property
    def decision_size(self) -> int:
        """K, the numbers of a decision: D, or H·D."""
        return prod(self.decision)

    @property
    def row_size(self) -> int:
        """R, the numbers of an observation with all that is seen."""
        seen = 0 if self.vision is None else self.vision.pixels + self.vision.instruction_bytes
        return self.observation_size + seen

    @property
    def question_size(self) -> int:
        """Numbers of a golden observation: O, and with vision that of its picture."""
        return self.observation_size + (self.vision is not None)

    def rows(self, questions: np.ndarray) -> np.ndarray:
        """Rows [N, R] of golden observations [N, O], or [N, O + 1] of which the last is the number of a picture."""
        if self.vision is None:
            return questions
        pixels, letters = self.vision.pixels, self.vision.instruction_bytes
        rows = np.empty((len(questions), self.row_size), np.float32)
        rows[:, : self.observation_size] = questions[:, :-1]
        # Byte i of picture p: the highest of (i + 1)·(2p + 1)·2654435761 mod 2³².
        index = np.arange(1, pixels + letters + 1, dtype=np.uint64) * np.uint64(2654435761)
        for row, number in zip(rows, questions[:, -1].astype(np.uint64), strict=True):
            drawn = ((index * (2 * number + 1)) >> np.uint64(24)) % np.uint64(256)
            drawn[pixels:] = 97 + drawn[pixels:] % 26
            drawn[pixels:][np.arange(letters) > number % letters] = 0
            row[self.observation_size :] = drawn
        return rows

    def refuse_no_bytes(self, rows: np.ndarray) -> None:
        """Refuse rows [B, R] whose pixels or letters are no whole numbers from 0 to 255, such as an image of 0 to 1.

        Raises:
            ValueError: naming one of them.
        """
        if self.vision is None:
            return
        seen = rows[:, self.observation_size :]
        with np.errstate(invalid="ignore"):  # what does not fit becomes another number
            wrong = seen.astype(np.uint8) != seen
        if wrong.any():
            raise ValueError(f"a pixel or letter is {seen[wrong][0]:g}; they are bytes, whole numbers from 0 to 255")

    def feeds(self, rows: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        """The graph's inputs for rows [B, R] and noise [B, K]."""
        if self.vision is None:
            return {"observation": rows, "noise": noise}
        pixels = self.observation_size + self.vision.pixels
        return {
            "observation": np.ascontiguousarray(rows[:, : self.observation_size]),
            "image": rows[:, self.observation_size : pixels].astype(np.uint8).reshape(-1, *self.vision.image_shape),
            "instruction": rows[:, pixels:].astype(np.int64),
            "noise": noise.reshape(-1, *self.decision),
        }

    def flat(self, output: np.ndarray) -> np.ndarray:
        """A graph's output [B, K] or [B, K, P], from [B, *decision] or [B, *decision, P]."""
        return output.reshape(len(output), self.decision_size, *output.shape[1 + len(self.decision) :])

    def row(self, values: np.ndarray, image: "np.ndarray | Mapping[str, np.ndarray]", instruction: str) -> np.ndarray:
        """The row [R] of a state [O], an image [H, W, C] uint8 as cameras give it, and an instruction.

        Of several cameras it is a mapping from their names, as `Vision.row` takes it.

        Raises:
            ValueError: when the policy sees no images, or the image or the instruction has another size.
        """
        if self.vision is None:
            raise ValueError("this policy sees no images")
        pixels = self.vision.row(image).astype(np.float32)
        text = np.zeros(self.vision.instruction_bytes, np.float32)
        data = instruction.encode()
        if len(data) > len(text):
            raise ValueError(f"the instruction has {len(data)} bytes, the policy reads {len(text)}")
        text[: len(data)] = list(data)
        return np.concatenate([np.asarray(values, np.float32).ravel(), pixels, text])
