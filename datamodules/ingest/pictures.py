"""The images of a store: encoded as they came, found by number, and decoded when they are asked for.

A *block* is what can be decoded alone: an image file, or a key frame of a video with the frames that build on it. The
blocks of a source lie one after another in a file, beside which a table says where each begins, and with which picture.
"""

import io
import os
import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gipo.common.errors import UserError, first_line
from robots.log.images import MAX_PIXELS, SIGNATURE, decode_png
from robots.log.video import CODECS, decode_block, decode_container

PICTURE = {"picture", "next_picture"}  # columns of their numbers; −1 where there is none
DATA, TABLE = "pictures.bin", "pictures.npy"
LOGGED = ("png", "jpeg", *CODECS)  # what a log may hold
FORMATS = (*LOGGED, "matroska")  # of blocks; their places are the numbers in tables
PNG_CHANNELS = {b"\0": 1, b"\2": 3, b"\6": 4}  # by the kind of its colours
BLOCKS = 4  # that are kept decoded while a source is converted: one of each camera
CACHE_BYTES = 256 << 20


class _Block(NamedTuple):
    """Where a block is: number of its first picture, bytes of the file from `begin` to `end`, and place in FORMATS."""

    first: int
    begin: int
    end: int
    format: int


BLOCK = np.dtype([(name, "i8") for name in _Block._fields])


class Album:
    """Pictures by number, through a cache of the blocks that were decoded last.

    Args:
        sources: folders of sources, each with the files that a `PictureWriter` left; empty ones count nothing.
        limit: bytes of decoded pixels that are kept.

    Raises:
        UserError: when a file is missing or damaged.
    """

    def __init__(self, sources: Sequence[Path], limit: int = CACHE_BYTES):
        self._limit, self._used = limit, 0
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        tables = [np.load(folder / TABLE) for folder in sources]
        self._starts = np.cumsum([0, *(len(table) for table in tables)])  # first block of each source
        self._blocks = np.concatenate([np.zeros(0, BLOCK), *tables])
        self._paths = [folder / DATA for folder in sources]

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """Pixels [N, H, W, C] uint8 of pictures [N].

        Raises:
            UserError: when one cannot be decoded, or they are of different sizes.
        """
        blocks = np.searchsorted(self._blocks["first"], numbers, side="right") - 1
        places = numbers - self._blocks["first"][blocks]
        order = np.argsort(blocks, kind="stable")  # so that a block is decoded once, however small the cache
        found: np.ndarray | None = None
        for row in order.tolist():
            pixels = _at(self._block(int(blocks[row])), int(places[row]))
            if found is None:
                found = np.empty((len(numbers), *pixels.shape), np.uint8)
            if pixels.shape != found.shape[1:]:
                raise UserError(f"images of {list(pixels.shape)} and {list(found.shape[1:])} stand in the same logs")
            found[row] = pixels
        return np.empty((0, 0, 0, 0), np.uint8) if found is None else found

    def _block(self, number: int) -> np.ndarray:
        """Pixels [n, H, W, C] of a block."""
        if number in self._cache:
            self._cache.move_to_end(number)
            return self._cache[number]
        block = self._blocks[number]
        source = int(np.searchsorted(self._starts, number, side="right")) - 1
        data = self._read(source, int(block["begin"]), int(block["end"]))
        try:
            pixels = decode(data, FORMATS[block["format"]])
            if number + 1 < len(self._blocks):
                _refuse_other_count(pixels, int(self._blocks[number + 1]["first"] - block["first"]))
        except UserError as error:
            place = f"source {source} of {len(self._paths)}, picture {int(block['first'])} of all"
            fix = "data.ingest.bad_episodes=skip looks at every picture, and leaves out the episodes of such"
            raise UserError(f"{place}: {error}; {fix}") from error
        self._used += pixels.nbytes
        self._cache[number] = pixels
        while self._used > self._limit and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._used -= oldest.nbytes
        return pixels

    def _read(self, source: int, begin: int, end: int) -> bytes:
        """Bytes of a source; read and not mapped, so that what was read once is not resident for ever.

        Its file is opened for it: a process may hold few open at once, and there may be one of every log.
        """
        try:
            with open(self._paths[source], "rb", buffering=0) as file:
                data = os.pread(file.fileno(), end - begin, begin)
        except OSError as error:
            raise UserError(f"cannot read {self._paths[source]}: {error.strerror}") from error
        if len(data) != end - begin:
            raise UserError(f"{self._paths[source]} is cut short; delete the store that it is in")
        return data


class PictureWriter:
    """Takes the pictures of one source, in the order in which they were seen.

    Args:
        folder: where its files go; they are made with the first picture.
    """

    def __init__(self, folder: Path):
        self.count = 0
        self._folder = folder
        self._file: BinaryIO | None = None
        self._blocks: list[_Block] = []
        self._decoded: OrderedDict[_Block, np.ndarray] = OrderedDict()  # the blocks that were seen last
        self._shapes: dict[int, tuple[int, int, int]] = {}  # of the pictures of blocks, by the first

    def add(self, data: bytes, form: str, alone: bool = True) -> int:
        """Keep a picture, which can be decoded `alone` or builds on the one before it; its number.

        Raises:
            UserError: when its format is none that can be decoded, or there is nothing that it could build on.
        """
        if form not in LOGGED:
            raise UserError(f"an image has the format {form!r:.40}; known are {', '.join(LOGGED)}")
        return self._keep(data, form, alone)

    def _keep(self, data: bytes, form: str, alone: bool) -> int:
        if self._file is None:
            self._file = open(self._folder / DATA, "w+b")  # noqa: SIM115 (closed by `close`)
        last = self._blocks[-1] if self._blocks else None
        begin = 0 if last is None else last.end
        if alone:
            self._blocks.append(_Block(self.count, begin, begin + len(data), FORMATS.index(form)))
        elif last is not None and FORMATS[last.format] == form:
            self._blocks[-1] = last._replace(end=begin + len(data))
        else:
            raise UserError("a frame of a video has no key frame before it")
        self._file.write(data)
        self.count += 1
        return self.count - 1

    def add_block(self, data: bytes, form: str, count: int) -> int:
        """Keep `count` pictures that are decoded together; the number of the first."""
        first = self._keep(data, form, alone=True)
        self.count += count - 1
        return first

    def check_block(self, first: int, count: int) -> None:
        """Decode the block of a picture that was added first of `count`.

        Raises:
            UserError: when it cannot be decoded, or to another number of pictures.
        """
        self.pixels(first)
        _refuse_other_count(self._decoded[self._block_of(first)], count)

    def pixels(self, number: int) -> np.ndarray:
        """[H, W, C] uint8 of a picture that was added, for whoever has to see it before the store is made.

        Raises:
            UserError: when it cannot be decoded.
        """
        block = self._block_of(number)
        if block not in self._decoded:
            self._decoded[block] = decode(self._read(block), FORMATS[block.format])
            while len(self._decoded) > BLOCKS:
                self._decoded.popitem(last=False)
        return _at(self._decoded[block], number - block.first)

    def shape(self, number: int) -> tuple[int, int, int]:
        """Height, width and channels of a picture that was added, by as little of its block as says it.

        Raises:
            UserError: when it cannot be decoded.
        """
        block = self._block_of(number)
        if block.first not in self._shapes:
            self._shapes[block.first] = _shape(self._read(block), FORMATS[block.format])
        return self._shapes[block.first]

    def _block_of(self, number: int) -> _Block:
        return self._blocks[bisect_right(self._blocks, number, key=attrgetter("first")) - 1]

    def _read(self, block: _Block) -> bytes:
        assert self._file is not None
        self._file.flush()
        return os.pread(self._file.fileno(), block.end - block.begin, block.begin)

    def of_video(self, number: int) -> bool:
        """Whether a picture that was added is a frame of a video, which is not quite what the policy saw."""
        return FORMATS[self._block_of(number).format] not in ("png", "jpeg")

    def close(self) -> None:
        """Write the table beside the pictures; nothing, where there are none."""
        if self._file is not None:
            self._file.close()
            np.save(self._folder / TABLE, np.array(self._blocks, BLOCK))


def move(folder: Path, target: Path, base: int) -> None:
    """Move the pictures of a source into another folder, which is made; the number of the first becomes `base`."""
    target.mkdir(parents=True)
    table = np.load(folder / TABLE)
    table["first"] += base
    np.save(target / TABLE, table)
    os.replace(folder / DATA, target / DATA)


def decode(data: bytes, form: str, most: int | None = None) -> np.ndarray:
    """Pixels [n, H, W, C] uint8 of a block, of no more than `most` of its pictures where it is said.

    Raises:
        UserError: when it cannot be decoded, or is no image that a policy sees.
    """
    if form in CODECS:
        return decode_block(data, form, most)
    if form == "matroska":
        return decode_container(data, most)
    pixels = _still(data, form)
    if pixels.dtype != np.uint8:
        raise UserError(f"an image holds {pixels.dtype}; a policy sees uint8")
    return pixels.reshape(1, *pixels.shape[:2], -1)


def _shape(data: bytes, form: str) -> tuple[int, int, int]:
    """Height, width and channels of the pictures of a block; of image files by their heads, of which logs hold 10⁵."""
    if form == "png" and data[:8] == SIGNATURE and data[12:16] == b"IHDR" and data[25:26] in PNG_CHANNELS:
        width, height = struct.unpack(">II", data[16:24])
        return height, width, PNG_CHANNELS[data[25:26]]
    if form in ("png", "jpeg"):
        with _by_pillow(data, form) as image:
            return image.height, image.width, len(image.getbands())
    height, width, channels = decode(data, form, most=1).shape[1:]
    return height, width, channels


def _refuse_other_count(block: np.ndarray, count: int) -> None:
    """A decoder drops what it cannot decode, and every frame after it would stand for the one before."""
    if len(block) != count:
        raise UserError(f"a video of {count} frames gives {len(block)} when it is decoded")


def _at(block: np.ndarray, place: int) -> np.ndarray:
    """A picture [H, W, C] of a block."""
    if place >= len(block):
        raise UserError(f"a video has {len(block)} frames where there must be {place + 1} at least")
    pixels: np.ndarray = block[place]
    return pixels


def _still(data: bytes, form: str) -> np.ndarray:
    if form == "png":
        with suppress(UserError):  # then another wrote it
            return decode_png(data)
    with _by_pillow(data, form) as image:
        return np.asarray(image)


@contextmanager
def _by_pillow(data: bytes, form: str) -> Iterator[Any]:
    """An image of which no more than the head is read yet."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=[form])
        if image.width * image.height > MAX_PIXELS:
            raise UserError(f"an image of {image.width:,} × {image.height:,} pixels is no camera's")
        yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:  # whose words name an object in memory
        raise UserError(f"an image cannot be decoded: it is no {form}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"an image cannot be decoded: {first_line(error)}") from error
