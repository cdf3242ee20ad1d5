"""Files that a user names, as text: read once, bounded, and refused in one line where they are something else."""

import os
import stat
from pathlib import Path

from gipo.common.errors import UserError

MAX_TEXT = 4 << 20  # bytes


def stand_in(beginning: bytes) -> str:
    """What stands in the place of a file, and how to get at it, by its first bytes; empty where nothing known does."""
    if not beginning:
        return "it is empty"
    if beginning.startswith(b"version https://git-lfs.github.com/spec/"):
        return "it is a pointer of Git LFS, and `git lfs pull` fetches the file itself"
    return "it is compressed with gzip; unpack it first" if beginning.startswith(b"\x1f\x8b") else ""


def stand_in_at(path: str | os.PathLike[str]) -> str:
    """As `stand_in`, of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return stand_in(file.read(64))
    except (OSError, ValueError):
        return ""


def read_text(path: str | os.PathLike[str], limit: int = MAX_TEXT) -> str:
    """The UTF-8 text of a regular file, without its byte-order mark.

    Raises:
        UserError: when there is no such file, it cannot be read, is no regular file, too large, or not UTF-8.
    """
    named = repr(os.fspath(path))
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for without end
            raise UserError(f"{named} is not a regular file")
        if status.st_size > limit:
            raise UserError(f"{named} has {status.st_size} bytes, more than the {limit} allowed")
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{named} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise UserError(f"cannot read {named}: {error.strerror or error}") from error
    except ValueError as error:  # a name that no file can have
        raise error if isinstance(error, UserError) else UserError(f"cannot read {named}: {error}") from error
