"""Images of a log: what comes in comes out, and what cannot be logged is named before it is tried."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.log import Image, pixels_of
from robots.log.images import check_images, compressed_image, encoding_of, image_row, png


@pytest.mark.parametrize(
    ("kind", "shape"), [("u1", (4, 5)), ("u1", (4, 5, 1)), ("u1", (4, 5, 3)), ("u2", (4, 5)), ("u2", (4, 5, 1)),
                        ("u2", (3, 2, 3))]
)  # fmt: skip
def test_pixels_come_back_as_they_were(kind: str, shape: tuple[int, ...]) -> None:
    highest = np.iinfo(kind).max
    pixels = np.random.default_rng(0).integers(0, highest, shape, endpoint=True).astype(kind)
    assert check_images({"wrist": pixels}) == ""
    row = compressed_image(Image("wrist", 1, 2, pixels[::-1]))
    found = pixels_of(row)
    assert found.dtype == np.dtype(kind)
    np.testing.assert_array_equal(found, pixels[::-1].reshape(shape[:2] if shape[2:] == (1,) else shape))
    pillow = pytest.importorskip("PIL.Image")
    if (kind, shape[2:]) != ("u2", (3,)):  # which it reads with 8 bits
        other = np.asarray(pillow.open(io.BytesIO(base64.b64decode(row["data"]))))
        np.testing.assert_array_equal(other, found)


def test_files_of_images_are_known_by_how_they_begin() -> None:
    encoded = png(np.zeros((2, 2), np.uint8))
    assert encoding_of(encoded) == encoding_of(np.zeros((2, 2), np.uint8)) == "png"
    assert encoding_of(b"\xff\xd8\xff\xe0 and so on") == "jpeg"
    assert check_images({"wrist": encoded}) == ""


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ({"a": np.zeros((4, 5, 4), np.uint8)}, r"image 'a' is \[4, 5, 4\] uint8; .* \(leave alpha out"),
        ({"a": np.zeros((4, 5), np.float32)}, r"\[4, 5\] float32; .* whole millimetres"),
        ({"a": np.zeros((4, 5), bool)}, "bool"),
        ({"a": np.zeros((0, 5), np.uint8)}, r"\[0, 5\] uint8"),
        ({"a": np.zeros(5, np.uint8)}, r"\[5\] uint8"),
        ({"a": b"GIF89a"}, "neither a PNG nor a JPEG"),
        ({"a": b""}, "neither a PNG nor a JPEG"),
        ({"a": [[1]]}, "is a list, neither an array nor bytes"),
        ({1: np.zeros((4, 5), np.uint8)}, "image 1 has no printable text for a name"),
        ({"a\ud800": np.zeros((4, 5), np.uint8)}, "has no printable text for a name"),
        ({"a": np.broadcast_to(np.uint8(0), (5000, 6000, 3))}, "has 90,000,000 bytes, the log takes"),
        (None, "not a mapping from camera to image"),
    ],
)
def test_what_is_no_image_is_named(images: Any, said: str) -> None:
    assert re.search(said, check_images(images))


@pytest.mark.parametrize("row", [b"[]", b"7", b'{"episode": "0"}', b'{"frame_id": ["front"]}', b'{"frame_id": null}'])
def test_what_is_no_row_of_an_image_is_refused(row: bytes) -> None:
    with pytest.raises(UserError, match="an image that no log of gipo-robot holds: "):
        image_row(row)
