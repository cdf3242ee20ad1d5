"""What stands at the end of a file whose reading came to a fault; it tells a torn end from damage."""

from typing import BinaryIO

from robots.log.container import COMPRESSION, MAGIC

PIECE = 1 << 20
_BLOCK = len(COMPRESSION).to_bytes(4, "little") + COMPRESSION  # in the head of every block, and of nothing else


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


def block_behind(file: BinaryIO, start: int) -> bool:
    """Whether the head of a block stands anywhere from byte `start` on: then the log went on behind the fault."""
    file.seek(start)
    kept = b""
    while piece := file.read(PIECE):
        if _BLOCK in kept + piece:
            return True
        kept = piece[1 - len(_BLOCK) :]
    return False
