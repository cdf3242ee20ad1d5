"""What stands at the end of a file whose reading came to a fault; it tells a torn end from damage."""

import re
from typing import BinaryIO

from robots.log.container import BLOCK, COMPRESSION, MAGIC

PIECE = 1 << 20
_BLOCK = len(COMPRESSION).to_bytes(4, "little") + COMPRESSION  # in the head of every block
_RECORD = re.compile(b"\\x06[\\s\\S]{%d}%s" % (8 + BLOCK.size - 4, re.escape(_BLOCK)))  # its kind, length, times, sizes
_HEAD_BYTES = 1 + 8 + BLOCK.size + len(COMPRESSION)


def ends_whole(file: BinaryIO, size: int) -> bool:
    """Whether a file of `size` bytes ends as a finished one: then nothing was cut off."""
    file.seek(max(0, size - len(MAGIC)))
    return size > len(MAGIC) and file.read() == MAGIC


def zeros_from(file: BinaryIO, size: int) -> int:
    """Byte from which on a file of `size` bytes holds zeros alone; `size` where its last byte is none."""
    while size:
        start = max(0, size - PIECE)
        file.seek(start)
        if kept := len(file.read(size - start).rstrip(b"\0")):
            return start + kept
        size = start
    return 0


def block_behind(file: BinaryIO, start: int, record: bool = False) -> bool:
    """Whether the head of a block stands anywhere from byte `start` on: then the log went on behind the fault.

    The index at the end of a log has what is in such a head; with `record` it must be that of a block's own record.
    """
    head = _RECORD if record else re.compile(re.escape(_BLOCK))
    file.seek(start)
    kept = b""
    while piece := file.read(PIECE):
        if head.search(kept + piece):
            return True
        kept = (kept + piece)[1 - _HEAD_BYTES :]
    return False
