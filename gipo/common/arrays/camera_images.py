"""How the images of several cameras lie in one tensor.

Of cameras of one size the channels stand after each other, [K·C, H, W]. Of different sizes all pixels stand in a row
[P], each image [C, H, W] after that of the camera before. Either way the pixels come in the same order.
"""

from collections.abc import Sequence
from math import prod

Shape = tuple[int, int, int]  # channels, height and width
Image = Shape | tuple[Shape, ...]  # of what all cameras see as one, or of each where they are of different sizes


def joint(shapes: Sequence[Shape]) -> Image:
    """What the images of these shapes are together."""
    channels, height, width = shapes[0]
    return tuple(shapes) if len(set(shapes)) > 1 else (channels * len(shapes), height, width)


def each_shape(image: Image, cameras: int) -> tuple[Shape, ...]:
    """Channels, height and width of what each of so many cameras sees."""
    if isinstance(image[0], int):
        channels, height, width = image
        return ((channels // cameras, height, width),) * cameras
    return image


def tensor_shape(image: Image) -> tuple[int, ...]:
    """Shape of the tensor of what all cameras see: [K·C, H, W] or [P]."""
    return (sum(map(prod, image)),) if isinstance(image[0], tuple) else image
