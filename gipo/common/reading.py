"""Reading files that a user names: once, bounded, and refused in one line where they are something else."""

import os
import stat

from gipo.common.errors import UserError

MAX_TEXT = 4 << 20  # bytes
_PIECE = 1 << 20


def stand_in(beginning: bytes) -> str:
    """What stands in the place of a file, and how to get at it, by its first bytes; empty where nothing known does."""
    if not beginning:
        return "it is empty"
    if beginning.startswith(b"version https://git-lfs.github.com/spec/"):
        return "it is a pointer of Git LFS, and `git lfs pull` fetches the file itself"
    return "it is compressed with gzip; unpack it first" if beginning.startswith(b"\x1f\x8b") else ""


def stand_in_at(path: str | os.PathLike[str]) -> str:
    """What `stand_in` says of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return stand_in(file.read(64))
    except (OSError, ValueError):
        return ""


def read_bytes(path: str | os.PathLike[str], limit: int, links: bool = True) -> bytes:
    """The bytes of a regular file, read once, so that what is checked is what is used.

    Args:
        path: the file.
        limit: the most bytes it may have.
        links: whether it may be a symbolic link, which could be pointed elsewhere meanwhile.

    Raises:
        UserError: when there is no such file, it cannot be read, or is a folder, pipe or device, a link, or too large.
    """
    named = repr(os.fspath(path))
    try:
        # A pipe would be waited for without end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))
    except (OSError, ValueError) as error:  # a ValueError of a name that no file can have
        if not links and os.path.islink(path):
            raise UserError(f"{named} is a symbolic link; name the file itself") from error
        raise UserError(f"cannot read {named}: {getattr(error, 'strerror', None) or error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{named} is not a regular file")
        if status.st_size > limit:
            raise UserError(f"{named} has {status.st_size} bytes, more than the {limit} allowed")
        with open(descriptor, "rb", closefd=False) as file:
            # Piece by piece: one read would set aside the whole limit first.
            data = b"".join(iter(lambda: file.read(min(_PIECE, max(0, limit + 1 - file.tell()))), b""))
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise UserError(f"{named} grew beyond {limit} bytes while it was read")
    return data


def read_text(path: str | os.PathLike[str], limit: int = MAX_TEXT) -> str:
    """The UTF-8 text of a regular file of at most `limit` bytes, without its byte-order mark.

    Raises:
        UserError: when `read_bytes` refuses it, or it is not UTF-8.
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise UserError(f"{os.fspath(path)!r} is not UTF-8 text: {where}") from error
