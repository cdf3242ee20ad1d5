"""Files that appear whole or not at all."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gipo.common.replacing import replace
from gipo.common.syncing import sync

PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to `path` when the block ends well.

    Synced before and after, so that a kill or a power cut at any moment leaves the old file or the new one.

    Raises:
        OSError: that names `path`, when the disk is full or cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        sync(partial)
        replace(partial, path)
        sync(path.parent)
    except Exception as error:
        found = of_the_disk(error)
        if found is None:
            raise
        raise OSError(found.errno, found.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def of_the_disk(error: BaseException | None) -> OSError | None:
    """The error of the operating system that a library tells in its own words, as torch's archive writer does."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__ or error.__context__
    return error


def write_text(text: str, path: Path) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text)


def remove_partials(folder: Path) -> None:
    """Delete what killed runs left half-written in `folder`."""
    for partial in folder.glob(f".*{PARTIAL}"):
        partial.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """The descriptor of a lock on `folder`, waited for while another process has it.

    A child that inherits the descriptor keeps the lock when this process is killed, until it ends itself.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"gipo: waiting for another process that works in {folder}", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
