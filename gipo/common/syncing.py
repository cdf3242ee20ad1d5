"""Waiting for the disk: what was written, or renamed within a folder, is still there after a power cut."""

import os


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
