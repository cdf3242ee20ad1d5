"""Camera images in a log, in the form that Foxglove shows."""

import base64
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson

from gipo.common.errors import UserError
from robots.log.container import MAX_RECORD
from robots.log.scan import Scanner, open_regular

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIGNATURES = {"png": SIGNATURE, "jpeg": b"\xff\xd8\xff"}  # how a file begins
DEPTHS = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}  # bits of a sample
CHANNELS = ("camera", "video")  # of images in files of their own, and of frames that build on others
MAX_PIXELS = 1 << 26
MAX_IMAGE = MAX_RECORD // 2 * 3 // 4 - (64 << 10)  # bytes: a record takes as many in base64, were they incompressible


class Image(NamedTuple):
    """A camera image: pixels as `check_image` allows, or the bytes of a file in `encoding` (`png`, `jpeg`).

    `episode` and `step` are those of the command that followed it; −1 outside of one.
    """

    camera: str
    wall_ns: int
    monotonic_ns: int
    pixels: "np.ndarray | bytes"
    encoding: str = "png"
    episode: int = -1
    step: int = -1


def check_images(images: Any) -> str:
    """Why the images of an observation cannot be logged; empty when they can."""
    if not isinstance(images, Mapping):
        return f"images are a {type(images).__name__}, not a mapping from camera to image"
    faults = (f"image {camera!r} {fault}" for camera, pixels in images.items() if (fault := _fault(camera, pixels)))
    return next(faults, "")


def encoding_of(pixels: "np.ndarray | bytes") -> str:
    """`png` for pixels, which the log encodes, and what bytes are by their first ones; empty when that is no image."""
    if isinstance(pixels, np.ndarray):
        return "png"
    return next((name for name, signature in SIGNATURES.items() if pixels.startswith(signature)), "")


def _fault(camera: Any, pixels: Any) -> str:
    if not isinstance(camera, str) or not camera.isprintable():
        return "has no printable text for a name"
    if isinstance(pixels, bytes):
        size = len(pixels)
        fault = "" if encoding_of(pixels) else "is bytes of neither a PNG nor a JPEG file"
    elif isinstance(pixels, np.ndarray):
        size = pixels.nbytes
        shaped = pixels.ndim in (2, 3) and (pixels.ndim == 2 or pixels.shape[2] in (1, 3)) and pixels.size
        fault = "" if pixels.dtype in DEPTHS and shaped else (
            f"is {list(pixels.shape)} {pixels.dtype}; a log holds [H, W], [H, W, 1] or [H, W, 3] of uint8 or uint16 "
            "(leave alpha out, and give depth in whole millimetres)"
        )  # fmt: skip
    else:
        return f"is a {type(pixels).__name__}, neither an array nor bytes"
    if not fault and size > MAX_IMAGE:
        return f"has {size:,} bytes, the log takes {MAX_IMAGE:,}"
    return fault


def png(pixels: np.ndarray) -> bytes:
    """[H, W, 3], [H, W, 1] or [H, W], uint8 or uint16, as a PNG file, without loss."""
    if fault := _fault("", pixels):
        raise UserError(f"an image {fault}")
    height, width = pixels.shape[:2]
    colour = 2 if pixels.shape[2:] == (3,) else 0
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, DEPTHS[pixels.dtype], colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered, 1)), (b"IEND", b"")]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def compressed_image(image: Image) -> dict[str, Any]:
    """A row of the `camera` channel, as Foxglove's CompressedImage."""
    encoded = png(image.pixels) if isinstance(image.pixels, np.ndarray) else image.pixels
    return camera_row(image, encoded, image.encoding)


def camera_row(image: Image, encoded: bytes, form: str) -> dict[str, Any]:
    """A row that says of encoded pixels whose they are, and of when."""
    seconds, nanoseconds = divmod(image.wall_ns, 10**9)
    return {
        "timestamp": {"sec": seconds, "nsec": nanoseconds},
        "frame_id": image.camera,
        "data": base64.b64encode(encoded).decode(),
        "format": form,
        "episode": image.episode,
        "step": image.step,
    }


def read_images(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Rows of the channels `camera` and `video`, in order; one at a time, because all of them may not fit into memory.

    Raises:
        UserError: when there is no such file, or a row is none.
    """
    with open_regular(path) as file:
        for block in Scanner(file).blocks():
            for topic, data in block:
                if topic in CHANNELS:
                    yield image_row(data)


def image_row(data: bytes) -> dict[str, Any]:
    """A row of a camera's channel, from its JSON; of older logs with −1 for its place.

    Raises:
        UserError: when it is none.
    """
    try:
        row = {"episode": -1, "step": -1, **orjson.loads(data)}
        if not all(type(row[name]) is int for name in ("episode", "step")):
            raise TypeError("its place is none")
        if not isinstance(row.get("frame_id", ""), str):
            raise TypeError("its frame_id is no name of a camera")
    except (ValueError, TypeError) as error:
        raise UserError(f"an image that no log of gipo-robot holds: {error}") from error
    return row


def pixels_of(row: dict[str, Any]) -> np.ndarray:
    """[H, W, 3] or [H, W], uint8 or uint16, of a row whose PNG is as `png` writes it.

    Raises:
        UserError: when it is not.
    """
    return decode_png(file_of(row))


def file_of(row: dict[str, Any]) -> bytes:
    """The image file, or the frame of a video, in a row of a camera's channel.

    Raises:
        UserError: when there is none.
    """
    try:
        return base64.b64decode(row["data"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"an image that gipo-robot did not encode: {error}") from error


def decode_png(data: bytes) -> np.ndarray:
    """[H, W, 3] or [H, W], uint8 or uint16, of a PNG as `png` writes it.

    Raises:
        UserError: when it is another.
    """
    try:
        if data[:8] != SIGNATURE or data[12:16] != b"IHDR":
            raise ValueError("it is no PNG")
        width, height, bits, colour, *rest = struct.unpack(">IIBBBBB", data[16:29])
        channels = {2: 3, 0: 1}[colour]
        kind = np.dtype({8: "u1", 16: ">u2"}[bits])
        if any(rest) or not 0 < width * height <= MAX_PIXELS or data[37:41] != b"IDAT":
            raise ValueError("it is of another size or form")
        (length,) = struct.unpack(">I", data[33:37])
        stride = 1 + width * channels * kind.itemsize
        rows = zlib.decompressobj().decompress(data[41 : 41 + length], height * stride)
        lines = np.frombuffer(rows, np.uint8).reshape(height, stride)
        if lines[:, 0].any():
            raise ValueError("its rows are filtered")
    except (KeyError, ValueError, struct.error, zlib.error) as error:
        raise UserError(f"an image that gipo-robot did not encode: {error}") from error
    values = np.ascontiguousarray(lines[:, 1:]).view(kind).astype(kind.newbyteorder("="), copy=False)
    return values.reshape((height, width, 3) if channels == 3 else (height, width))
