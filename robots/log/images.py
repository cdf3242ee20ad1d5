"""Camera images in a log, in the form that Foxglove shows."""

import base64
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from robots.errors import LogError


class Image(NamedTuple):
    """A camera image: [H, W, 3] or [H, W] uint8, or bytes already in `encoding` (`png`, `jpeg`)."""

    camera: str
    wall_ns: int
    monotonic_ns: int
    pixels: "np.ndarray | bytes"
    encoding: str = "png"


def png(pixels: np.ndarray) -> bytes:
    """[H, W, 3] or [H, W] uint8 as a PNG file."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise LogError(f"an image must be [H, W, 3] or [H, W] uint8, got {pixels.shape} {pixels.dtype}")
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered, 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
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
    }
