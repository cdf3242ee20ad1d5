"""Cameras as video in a log: one frame a message, in the form that Foxglove shows, decoded from any key frame on.

A frame is written when it is seen, for the encoder looks neither ahead nor back; so a killed session keeps what was
flushed, and an episode begins with a key frame. A key frame and those that build on it are a block.
"""

import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from gipo.common.errors import UserError, first_line
from gipo.common.extras import install
from robots.log.images import Image, file_of, pixels_of, read_images
from robots.log.scheduling import kept_scheduling

KEY_EVERY = 15  # frames; what has to be decoded for one, and what a lost one takes with it
# Codec → the encoder's name, its options, and the decoder's name. Constant quality; a packet for every frame, at once.
CODECS: dict[str, tuple[str, dict[str, str], str]] = {
    "h264": ("libx264", {"preset": "veryfast", "tune": "zerolatency", "crf": "18", "forced-idr": "1"}, "h264"),
    "av1": (
        "libsvtav1",
        # SVT-AV1 4.1 can wait for ever on a busy machine; with `rtc` more rarely.
        {"preset": "10", "crf": "22", "svtav1-params": "pred-struct=1:lookahead=0:rtc=1:lp=1"},
        "libdav1d",
    ),
}


def fits(image: Image) -> bool:
    """Whether a camera's image can be a frame: eight bits of three colours, height and width even and at least 16."""
    pixels = image.pixels
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
        return False
    return min(pixels.shape[:2]) >= 16 and not any(size % 2 for size in pixels.shape[:2])


class VideoWriter:
    """Encodes what cameras see, each with an encoder of its own.

    Args:
        codec: `h264` or `av1`.

    Raises:
        UserError: when there is no such codec, or what encodes it is not installed.
    """

    def __init__(self, codec: str):
        if codec not in CODECS:
            raise UserError(f"video is {codec!r}; it must be one of {', '.join(CODECS)}")
        self.codec = codec
        _av()
        self._encoders: dict[str, Any] = {}
        self._last: dict[str, tuple[int, tuple[int, ...], int]] = {}  # camera → episode, shape and number of frames

    def frame(self, image: Image) -> tuple[bytes, bool]:
        """The next frame of the image's camera, and whether it can be decoded alone.

        Raises:
            UserError: when the encoder gives none.
        """
        av, shape = _av(), image.pixels.shape  # type: ignore[union-attr]
        episode, before, count = self._last.get(image.camera, (image.episode, (), 0))
        if before != shape:
            self._end(image.camera)
            self._encoders[image.camera], count = _encoder(self.codec, shape), 0
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image.pixels), format="rgb24")
        frame.pts = count
        if episode != image.episode or count == 0:
            frame.pict_type = av.video.frame.PictureType.I
        self._last[image.camera] = (image.episode, shape, count + 1)
        packets = self._encoders[image.camera].encode(frame)
        if len(packets) != 1:
            raise UserError(f"the {self.codec} encoder gave {len(packets)} packets for a frame; it must give one")
        return bytes(packets[0]), bool(packets[0].is_keyframe)

    def close(self) -> None:
        """End the encoders."""
        for camera in list(self._encoders):
            self._end(camera)

    def _end(self, camera: str) -> None:
        """End the encoder of a camera, if it has one: SVT-AV1 is not to be dropped in the midst of a video."""
        if camera in self._encoders:
            self._encoders.pop(camera).encode(None)


def decode_block(data: bytes, codec: str, most: int | None = None) -> np.ndarray:
    """[n, H, W, 3] uint8: a key frame and those that build on it, one after another as they were written.

    No more than `most` of them, where it is said.

    Raises:
        UserError: when they cannot be decoded.
    """
    av = _av()
    decoder = av.CodecContext.create(CODECS[codec][2], "r")
    decoder.thread_count = 1  # whatever else there is to do beside it
    try:
        packets = [*decoder.parse(data), *decoder.parse(), None]
        frames = (frame for packet in packets for frame in decoder.decode(packet))
        return np.stack([frame.to_ndarray(format="rgb24") for frame in islice(frames, most)])
    except (av.FFmpegError, ValueError) as error:
        raise UserError(f"a video cannot be decoded: {first_line(error)}") from error


def decode_container(data: bytes, most: int | None = None) -> np.ndarray:
    """[n, H, W, 3] uint8: the frames of a video file that is in memory, in the order in which they are shown.

    No more than `most` of them, where it is said.

    Raises:
        UserError: when they cannot be decoded.
    """
    av = _av()
    try:
        # Named, and allowed no protocol: FFmpeg would else take it for a playlist, and open what that names.
        with av.open(io.BytesIO(data), format="matroska", options={"protocol_whitelist": ""}) as file:
            file.streams.video[0].thread_count = 1
            return np.stack([frame.to_ndarray(format="rgb24") for frame in islice(file.decode(video=0), most)])
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise UserError(f"a video cannot be decoded: {first_line(error)}") from error


def blocks_between(path: Path, begin: float, end: float) -> Iterator[tuple[bytes, list[float]]]:
    """What a video file shows from `begin` to `end`, seconds: blocks as files, and the moment of each of their frames.

    Nothing is decoded. A block is a key frame with what follows up to the next one, and with that one where frames
    between the two build on both; the first may begin earlier.

    Raises:
        UserError: when there is no such file, or it is no mp4 video.
    """
    av = _av()
    try:
        # As in `decode_container`; LeRobot's videos are mp4.
        with av.open(str(path), format="mp4", options={"protocol_whitelist": "file"}) as file:
            stream = file.streams.video[0]
            file.seek(max(0, int(begin / stream.time_base)), stream=stream)
            packets = takewhile(lambda packet: packet.pts is not None, file.demux(stream))  # the last one says: the end
            for block in _blocks(packets):
                if float(block[0].pts * stream.time_base) > end:
                    return
                yield _file_of(stream, block)
    except (av.FFmpegError, IndexError, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is no video that can be read: {first_line(error)}; copy it again") from error


def _blocks(packets: Iterable[Any]) -> Iterator[list[Any]]:
    """Packets, which come as they are decoded, in lists of which each can be decoded alone, in the order of time.

    Frames that come after a key frame and are shown before it build on the block before it, too (an open group of
    pictures, as x265 makes them): they end that block, behind the key frame, which begins the next one once more.
    """
    block: list[Any] = []
    leading: list[Any] = []  # the next key frame, and what is shown before it
    for packet in packets:
        if leading and not packet.is_keyframe and packet.pts < leading[0].pts:
            leading.append(packet)
            continue
        if leading:
            yield block + (leading if len(leading) > 1 else [])
            block, leading = leading[:1], []
        if packet.is_keyframe and block:
            leading = [packet]
        elif not block or packet.pts > block[0].pts:  # else it builds on what is before the first block
            block.append(packet)
    if block:
        yield block + (leading if len(leading) > 1 else [])
    if leading:
        yield leading[:1]


def _file_of(stream: Any, packets: list[Any]) -> tuple[bytes, list[float]]:
    shown = sorted(float(packet.pts * stream.time_base) for packet in packets)
    data = io.BytesIO()
    with _av().open(data, "w", format="matroska") as file:
        # Copied whatever the codec is: PyAV would else look for an encoder that has the name of the decoder.
        copy = file.add_stream_from_template(stream, opaque=True)
        for packet in packets:
            times = packet.pts, packet.dts, packet.time_base
            packet.stream = copy
            file.mux(packet)
            packet.pts, packet.dts, packet.time_base = times  # which muxing writes over, and another block may need
    return data.getvalue(), shown


def read_pixels(path: str | os.PathLike[str], cameras: set[str]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Rows of some cameras in a log, each with its pixels; of a camera in order, memory holds a block of each.

    Raises:
        UserError: as `read_images` does, and when an image or a video cannot be decoded.
    """
    waiting: dict[str, list[dict[str, Any]]] = {}
    for row in read_images(path):
        camera = row.get("frame_id")
        if camera not in cameras:
            continue
        if row.get("format") not in CODECS:
            yield from _decoded(path, [row])
            continue
        if row.get("key"):
            yield from _decoded(path, waiting.pop(camera, []))
        waiting.setdefault(camera, []).append(row)
    for rows in waiting.values():
        yield from _decoded(path, rows)


def _decoded(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Rows of a block, each with its pixels."""
    if not rows:
        return
    try:
        if rows[0].get("format") not in CODECS:
            yield rows[0], pixels_of(rows[0])
            return
        pixels = decode_block(b"".join(map(file_of, rows)), rows[0]["format"])
        if len(pixels) != len(rows):
            raise UserError(f"a video of {len(rows)} frames has {len(pixels)}")
    except UserError as error:
        where = f"episode {rows[0].get('episode')}, step {rows[0].get('step')}, camera {rows[0].get('frame_id')}"
        raise UserError(f"{path}, {where}: {error}") from error
    yield from zip(rows, pixels, strict=True)


def _encoder(codec: str, shape: tuple[int, ...]) -> Any:
    av, (name, options, _) = _av(), CODECS[codec]
    made = av.CodecContext.create(name, "w")
    made.height, made.width = shape[:2]
    made.pix_fmt, made.time_base, made.framerate = "yuv420p", Fraction(1, 30), 30
    made.gop_size, made.max_b_frames, made.thread_count = KEY_EVERY, 0, 1
    made.options = dict(options)
    with kept_scheduling():
        made.open()
    return made


def _av() -> Any:
    os.environ.setdefault("SVT_LOG", "1")  # errors alone; its encoder speaks on standard error
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError(f"video needs PyAV: {install('video')}") from error
    av.logging.set_level(av.logging.PANIC)  # what is wrong is told once, by an exception
    return av
