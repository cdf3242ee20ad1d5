"""The toy task of policies that see, without torch: what its camera shows, and what may be unlike training.

A target lies in the plane of two actions, and the camera shows it, and the action that was executed last, as two soft
spots. `datamodules.vla.ToyVLA` draws the simulator's image by it, `robots.drivers.toy` that of the robot.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

INSTRUCTION = "push the T-shaped block onto the target"
CAMERA = "front"
CAMERAS = ("front", "side")  # where there are two; the second looks along the first action
GROUND, TARGET, ACTION = (np.array(colour, np.float32) for colour in ((20, 20, 20), (40, 250, 80), (250, 60, 40)))
SPOT = 0.3  # radius of a spot, in actions: a standard deviation
VIEW = 0.9  # the largest action that the camera shows, in any dimension
Size = tuple[int, int]  # height and width, pixels


@dataclass(frozen=True)
class VisualGap:
    """How a camera differs from that of training; the defaults are no gap.

    Args:
        light: factor on every pixel.
        colour: from 0 to 1, how far red has turned into blue, and blue into red.
        shift_x: how far the picture lies to the right of where it lay, in actions.
        shift_y: how far below.
    """

    light: float = 1.0
    colour: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0


NO_GAP = VisualGap()


def pictures(
    cameras: Mapping[str, Size], target: np.ndarray, action: np.ndarray, gap: VisualGap = NO_GAP
) -> dict[str, np.ndarray]:
    """What each camera shows, by its name, of its size; arguments as those of `picture`.

    One alone sees both actions. Two look along the plane: each shows one action across, and nothing of the other.
    """
    if tuple(cameras) != CAMERAS:
        ((camera, size),) = cameras.items()
        return {camera: picture(target, action, size, gap)}
    found = {}
    for axis, (camera, size) in enumerate(cameras.items()):
        along, last = (np.stack([spot[:, axis], np.zeros(len(spot))], -1) for spot in (target, action))
        found[camera] = picture(along, last, size, gap)
    return found


def picture(target: np.ndarray, action: np.ndarray, size: Size, gap: VisualGap = NO_GAP) -> np.ndarray:
    """What the camera shows, [N, *size, 3] uint8.

    Args:
        target: [N, 2], in actions.
        action: [N, 2], executed last.
        size: height and width, pixels.
        gap: between this camera and that of training.
    """
    height, width = (np.linspace(-VIEW, VIEW, count, dtype=np.float32) for count in size)
    pixels = np.broadcast_to(GROUND, (len(target), *size, 3)).copy()
    for spot, colour in ((action, ACTION), (target, TARGET)):
        near = [
            np.exp(-0.5 * ((axis - spot[:, None, dimension] - shift) / SPOT) ** 2).astype(np.float32)
            for dimension, (axis, shift) in enumerate(((width, gap.shift_x), (height, gap.shift_y)))
        ]
        weight = (near[1][:, :, None] * near[0][:, None, :])[..., None]
        pixels += weight * (colour - pixels)
    return tinted(pixels, gap)


def tinted(pixels: np.ndarray, gap: VisualGap) -> np.ndarray:
    """Pixels [..., 3] in the light and the colours of a camera, uint8."""
    turned = pixels + np.float32(gap.colour) * (pixels[..., ::-1].astype(np.float32) - pixels)
    return np.clip(np.float32(gap.light) * turned, 0, 255).round().astype(np.uint8)
