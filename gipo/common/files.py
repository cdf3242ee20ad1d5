"""Writing files and folders: each appears whole or not at all, and is still there after a power cut."""

import errno
import fcntl
import glob
import itertools
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gipo.common.errors import UserError, of_the_system

PARTIAL = ".partial"
DEAR = (".mcap", ".jsonl", ".ckpt", ".onnx", ".hdf5")  # suffixes of what a command reads, and nobody can make again
BEGINS = {b"PK\3\4": ".ckpt", b"\x89MCAP0": ".mcap", b"\x89HDF\r\n": ".hdf5"}  # whatever their names are
LOOK_SECONDS = 0.5  # between two looks at a lock that another process has
PathLike = str | os.PathLike[str]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to `path` when the block ends well.

    Synced before and after, so that a kill or a power cut at any moment leaves the old file or the new one.

    Raises:
        OSError: that names `path`, when the disk is full or cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with _naming(path):
            yield partial
            sync(partial)
            replace(partial, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, whose content becomes that of `path`, which is empty or not there, when the block ends well.

    It lies beside `path`, and appears at once; but inside where `path` exists, for who may write to a folder, as to a
    mounted one, may perhaps not write beside it, and then entry by entry. What a killed process left of it is deleted.

    Raises:
        OSError: that names `path`, when the disk is full or cannot be written to.
    """
    inside = path.is_dir()
    parent = path if inside else path.parent
    partial = parent / f".{path.name}.{os.getpid()}{PARTIAL}"
    try:
        with _naming(path):
            parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(parent, path.name)
            partial.mkdir()
            yield partial
            for each in (*partial.rglob("*"), partial):
                sync(each)
            if inside:
                for each in list(partial.iterdir()):
                    os.rename(each, path / each.name)
            else:
                os.rename(partial, path)
            sync(parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(parent: Path, name: str) -> None:
    """Delete what processes that are no more left of a folder of this name; another may be writing it right now."""
    for left in parent.glob(f".{glob.escape(name)}.*{PARTIAL}"):
        if "." not in left.name[len(name) + 2 : -len(PARTIAL)] and _is_abandoned(left):
            shutil.rmtree(left)


def _is_abandoned(partial: Path) -> bool:
    """Whether no other process is there that writes to what is called `.NAME.PROCESS.partial`."""
    process = partial.name.removesuffix(PARTIAL).rpartition(".")[2]
    return process.isdecimal() and (int(process) == os.getpid() or not _runs(int(process)))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have errors of the disk name `path`, and not what is written beside it."""
    try:
        yield
    except Exception as error:
        found = of_the_disk(error)
        if found is None:
            raise
        raise OSError(found.errno, found.strerror, str(path)) from error


def write_bytes(data: bytes, path: PathLike) -> None:
    """Write `data` to `path`, whole or not at all; its folder is made where there is none.

    Raises:
        UserError: naming `path`, when it cannot be written, or is a device or a pipe.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {of_the_system(error, target.parent)}") from error


def write_text(text: str, path: PathLike) -> None:
    """Write `text` in UTF-8, as `write_bytes` does; what is no text in it, as in a name of a file, by its numbers."""
    write_bytes(text.encode(errors="backslashreplace"), path)


def free_name(path: Path) -> Path:
    """The first of `config-1.yaml`, `config-2.yaml`, … that is not there, for a path `config.yaml`."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    return next(other for other in numbered if not other.exists())


def refuse_to_replace(path: PathLike, kind: str) -> None:
    """Refuse a file to write that is there and of a kind that cannot be made again, by its name or its first bytes.

    Such is the first of all logs for `--out *.mcap`, where the name to write was forgotten.

    Args:
        path: what is to be written.
        kind: the suffix of what is written, which may replace its like.

    Raises:
        UserError: naming the file; or it is a folder.
    """
    found = Path(path)
    if found.is_dir() or str(path).endswith("/"):
        raise UserError(f"--out {path} is a folder; name a file in it")
    if not found.is_file():
        return
    there = found.suffix
    with suppress(OSError), open(found, "rb") as file:
        first = file.read(max(map(len, BEGINS)))
        there = next((suffix for magic, suffix in BEGINS.items() if first.startswith(magic)), there)
    if there in DEAR and there != kind:
        raise UserError(f"--out {path} is there, and a {there} file is not replaced by a {kind}; name another")


def sync(path: PathLike) -> None:
    """Wait until what was written to a file, or renamed within a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(partial: PathLike, path: PathLike) -> None:
    """Rename `partial` to `path`, in place of what is a file or not there.

    Raises:
        OSError: naming `path`, as where it is a device or a pipe (`/dev/null`, `/dev/stdout`), which every program of
            the machine would miss.
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


def of_the_disk(error: BaseException | None) -> OSError | None:
    """The error of the operating system that a library tells in its own words, as torch's archive writer does."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__ or error.__context__
    return error


def remove_partials(folder: Path) -> None:
    """Delete the files that killed runs left half-written in `folder`; another process may write one right now."""
    for partial in folder.glob(f".*{PARTIAL}"):
        if _is_abandoned(partial) and not partial.is_dir():
            partial.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, waiting: Callable[[], object] | None = None) -> Iterator[int]:
    """The descriptor of a lock on `folder`, waited for while another process has it.

    A child that inherits the descriptor keeps the lock when this process is killed, until it ends itself.

    Args:
        folder: to be locked.
        waiting: called now and then while it is waited for, in a thread that no signal reaches: what it raises ends the
            waiting.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"gipo: waiting for another process that works in {folder}", file=sys.stderr)
            if waiting is None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            else:
                _look_until_locked(descriptor, waiting)
        yield descriptor
    finally:
        os.close(descriptor)


def _look_until_locked(descriptor: int, waiting: Callable[[], object]) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waiting()
            time.sleep(LOOK_SECONDS)
