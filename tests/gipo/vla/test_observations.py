"""What a vision-language-action policy is built for, and how words travel."""

import pytest
import torch

from gipo.common.arrays.camera_images import Image
from gipo.common.errors import UserError
from gipo.vla.observations import VLASpaces, decode_instructions, encode_instructions, flattened


def test_words_travel_as_bytes() -> None:
    found = encode_instructions(["ab", "", "é"], length=4)
    assert found.tolist() == [[97, 98, 0, 0], [0, 0, 0, 0], [0xC3, 0xA9, 0, 0]]
    assert decode_instructions(found) == ["ab", "", "é"]
    assert found.dtype == torch.int64


def test_a_longer_instruction_is_refused() -> None:
    with pytest.raises(UserError, match="'push it' has 7 bytes, 6 are kept"):
        encode_instructions(["push it"], length=6)


def test_a_decision_is_a_chunk() -> None:
    spaces = VLASpaces([3, 8, 9], 5, [-1, -1], [1, 1], chunk=4)  # type: ignore[arg-type]
    assert spaces.decision == (4, 2)
    assert spaces.observation_size == 5
    assert spaces == VLASpaces((3, 8, 9), 5, (-1.0, -1.0), (1.0, 1.0), 4)


@pytest.mark.parametrize(
    "sizes",
    [
        ((3, 8), 5, (-1,), (1,), 4),
        ((3, 0, 8), 5, (-1,), (1,), 4),
        ((3, 8, 8), 0, (-1,), (1,), 4),
        ((3, 8, 8), 5, (1,), (1,), 4),
        ((3, 8, 8), 5, (-1,), (1,), 0),
        (((3, 8, 8), (3, 8)), 5, (-1,), (1,), 4),
        (((3, 8, 8), (3, 8, 0)), 5, (-1,), (1,), 4),
        ((), 5, (-1,), (1,), 4),
    ],
)
def test_impossible_sizes_are_refused(sizes: tuple) -> None:
    with pytest.raises(UserError, match="a policy needs"):
        VLASpaces(*sizes)


SHAPES = ((3, 8, 8), (3, 6, 4))


@pytest.mark.parametrize(
    ("image", "cameras"),
    [((6, 8, 8), ("a", "a")), ((4, 8, 8), ("a", "b", "c")), (SHAPES, ()), (SHAPES, ("a", "b", "c")), (SHAPES, ("a",))],
)
def test_cameras_have_names_of_their_own_and_as_many_channels(image: Image, cameras: tuple[str, ...]) -> None:
    with pytest.raises(
        UserError, match=r"cameras need names of their own and as many channels each, got [a-z, ]* of \([\d, ()]*\)$"
    ):
        VLASpaces(image, 5, (-1.0,), (1.0,), 4, cameras=cameras)


def test_pixels_come_in_one_order_whatever_the_sizes() -> None:
    alike, unlike = (VLASpaces(image, 5, (-1.0,), (1.0,), 4, cameras=("a", "b")) for image in ((6, 8, 8), SHAPES))
    assert (alike.image_shape, alike.shapes) == ((6, 8, 8), ((3, 8, 8),) * 2)
    assert (unlike.image_shape, unlike.shapes) == ((3 * 64 + 3 * 24,), SHAPES)
    for spaces in (alike, unlike):
        images = [torch.randint(0, 256, (2, 5, *shape), dtype=torch.uint8) for shape in spaces.shapes]
        both = spaces.together(images)
        assert both.shape == (2, 5, *spaces.image_shape)
        assert torch.equal(both.flatten(2), torch.cat([each.flatten(2) for each in images], -1))
        assert all(map(torch.equal, spaces.apart(both), images))
    assert flattened({"image": both, "state": torch.zeros(2, 5, 7), "instruction": torch.zeros(2, 5, 9)})[0].shape == (
        10, *unlike.image_shape,
    )  # fmt: skip
