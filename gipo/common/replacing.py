"""Renaming over a file: a device or a pipe of that name would be gone for every program of the machine."""

import errno
import os
import stat
from pathlib import Path

PathLike = str | os.PathLike[str]


def replace(partial: PathLike, path: PathLike) -> None:
    """Rename `partial` to `path`, in place of what is a file or not there.

    Raises:
        OSError: naming `path`, as where it is a device or a pipe: `/dev/null`, `/dev/stdout`.
    """
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode) or os.path.isdir(path)  # of a folder the system says so itself
    except OSError:  # nothing is there
        is_file = True
    if not is_file or Path(path).parent.resolve() == Path("/dev"):
        raise FileExistsError(
            errno.EEXIST, "it is a device or a pipe, and would be replaced by a file", os.fspath(path)
        )
    os.replace(partial, path)
