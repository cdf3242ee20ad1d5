"""The folder of stores: where it is, who may write to it, and what killed ingests left in it."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gipo.common.errors import UserError
from gipo.common.files import replace, sync

PARTIAL, LOCK = ".partial", ".lock"
ELSEWHERE = "; name another folder with data.ingest.cache"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors of writing, which reading sources never meets


def cache_folder(named: str | Path | None) -> Path:
    """The folder named, else `$XDG_CACHE_HOME/gipo`, else `~/.cache/gipo`; made if it is not there.

    Raises:
        UserError: when it cannot be made.
    """
    try:
        usual = os.environ.get("XDG_CACHE_HOME")
        folder = Path(named) if named is not None else Path(usual or Path.home() / ".cache") / "gipo"
        folder.mkdir(parents=True, exist_ok=True)
    except RuntimeError as error:  # of a user without a home, as a container's may be
        raise UserError(
            "this user has no home folder to keep stores in; name a folder with data.ingest.cache"
        ) from error
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror or error}{ELSEWHERE}") from error
    return folder


@contextmanager
def making(cache: Path, name: str) -> Iterator[Path]:
    """An empty folder to make the store `name` in, gone afterwards; nobody else makes the same one meanwhile.

    Waits for another process that does. What a killed process left, of any store, is removed; a lock ends with the
    process that holds it, so what is locked is in use.
    """
    with _locked(cache / f"{name}{LOCK}"):
        for left in cache.glob(f"*{PARTIAL}"):
            _remove_stale(left, ours=left.name == f"{name}{PARTIAL}")
        folder = cache / f"{name}{PARTIAL}"
        folder.mkdir()
        try:
            yield folder
        finally:
            _remove(folder)


def publish(folder: Path, target: Path) -> None:
    """Make a finished folder appear as `target`, on disk before and after: a power cut leaves all of it or nothing."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)
    replace(folder, target)
    sync(target.parent)


def _remove_stale(left: Path, ours: bool) -> None:
    if ours:
        _remove(left)
        return
    with open(left.with_suffix(LOCK), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove(left)


def _remove(folder: Path) -> None:
    # A worker of a killed ingest may make its last file meanwhile; by the second time it is gone, too.
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        file = open(path, "ab")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}{ELSEWHERE}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
