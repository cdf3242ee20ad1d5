"""Camera images in a log, in the form that Foxglove shows."""

import base64
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson

from robots.errors import LogError
from robots.log.scan import Scanner, open_regular

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 1 << 26


class Image(NamedTuple):
    """A camera image: [H, W, 3] or [H, W] uint8, or bytes already in `encoding` (`png`, `jpeg`).

    `episode` and `step` are those of the command that followed it; −1 outside of one.
    """

    camera: str
    wall_ns: int
    monotonic_ns: int
    pixels: "np.ndarray | bytes"
    encoding: str = "png"
    episode: int = -1
    step: int = -1


def png(pixels: np.ndarray) -> bytes:
    """[H, W, 3] or [H, W] uint8 as a PNG file."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise LogError(f"an image must be [H, W, 3] or [H, W] uint8, got {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered, 1)), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def compressed_image(image: Image) -> dict[str, Any]:
    """A row of the `camera` channel, as Foxglove's CompressedImage."""
    encoded = png(image.pixels) if isinstance(image.pixels, np.ndarray) else image.pixels
    seconds, nanoseconds = divmod(image.wall_ns, 10**9)
    return {
        "timestamp": {"sec": seconds, "nsec": nanoseconds},
        "frame_id": image.camera,
        "data": base64.b64encode(encoded).decode(),
        "format": image.encoding,
        "episode": image.episode,
        "step": image.step,
    }


def read_images(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Rows of the `camera` channel, in order; one at a time, because all of them may not fit into memory.

    Raises:
        LogError: when there is no such file, or a row is none.
    """
    with open_regular(path) as file:
        for item in Scanner(file).items():
            for topic, data in item if isinstance(item, list) else ():
                if topic == "camera":
                    yield _row(data)


def _row(data: bytes) -> dict[str, Any]:
    try:
        row = {"episode": -1, "step": -1, **orjson.loads(data)}
        if not all(type(row[name]) is int for name in ("episode", "step")):
            raise TypeError("its place is none")
    except (ValueError, TypeError) as error:
        raise LogError(f"an image that no log of gipo-robot holds: {error}") from error
    return row


def pixels_of(row: dict[str, Any]) -> np.ndarray:
    """[H, W, 3] or [H, W] uint8 of a row whose PNG is as `png` writes it.

    Raises:
        LogError: when it is not.
    """
    try:
        data = base64.b64decode(row["data"], validate=True)
        if data[:8] != SIGNATURE or data[12:16] != b"IHDR":
            raise ValueError("it is no PNG")
        width, height, *form = struct.unpack(">IIBBBBB", data[16:29])
        channels = {(8, 2, 0, 0, 0): 3, (8, 0, 0, 0, 0): 1}[tuple(form)]
        if not 0 < width * height <= MAX_PIXELS or data[37:41] != b"IDAT":
            raise ValueError("it is of another size or form")
        (length,) = struct.unpack(">I", data[33:37])
        size = height * (1 + width * channels)
        rows = zlib.decompressobj().decompress(data[41 : 41 + length], size)
        lines = np.frombuffer(rows, np.uint8).reshape(height, 1 + width * channels)
        if lines[:, 0].any():
            raise ValueError("its rows are filtered")
    except (KeyError, TypeError, ValueError, struct.error, zlib.error) as error:
        raise LogError(f"an image that gipo-robot did not encode: {error}") from error
    return lines[:, 1:].reshape((height, width, 3) if channels == 3 else (height, width))
