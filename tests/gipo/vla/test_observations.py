"""What a vision-language-action policy is built for, and how words travel."""

import pytest
import torch

from gipo.common.errors import UserError
from gipo.vla.observations import VLASpaces, decode_instructions, encode_instructions


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
    ],
)
def test_impossible_sizes_are_refused(sizes: tuple) -> None:
    with pytest.raises(UserError, match="a policy needs"):
        VLASpaces(*sizes)


@pytest.mark.parametrize(("channels", "cameras"), [(6, ("a", "a")), (4, ("a", "b", "c"))])
def test_cameras_have_names_of_their_own_and_as_many_channels(channels: int, cameras: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="cameras need names of their own and as many channels each"):
        VLASpaces((channels, 8, 8), 5, (-1.0,), (1.0,), 4, cameras=cameras)
