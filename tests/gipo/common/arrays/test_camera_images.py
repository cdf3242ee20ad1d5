"""Images of cameras of one size stand one after another, those of different sizes in a row of pixels."""

import pytest

from gipo.common.arrays.camera_images import Image, Shape, each_shape, joint, tensor_shape

BIG, SMALL = (3, 8, 8), (3, 6, 4)


@pytest.mark.parametrize(
    ("shapes", "image", "tensor"),
    [
        ((BIG,), (3, 8, 8), (3, 8, 8)),
        ((BIG, BIG), (6, 8, 8), (6, 8, 8)),
        ((BIG, SMALL), (BIG, SMALL), (3 * 64 + 3 * 24,)),
        ((BIG, SMALL, BIG), (BIG, SMALL, BIG), (2 * 3 * 64 + 3 * 24,)),
    ],
)
def test_the_image_of_all_is_told_by_those_of_each(
    shapes: tuple[Shape, ...], image: Image, tensor: tuple[int, ...]
) -> None:
    assert joint(shapes) == image
    assert each_shape(image, len(shapes)) == shapes
    assert tensor_shape(image) == tensor
