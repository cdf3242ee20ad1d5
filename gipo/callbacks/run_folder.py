"""The folder of a run: its name is reserved, one process at a time writes to it, a resumed run goes on in its own."""

import fcntl
import itertools
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gipo.common.errors import UserError
from gipo.common.reading import read_text

IN_USE, CONFIG, CHECKPOINTS = ".in_use", "config.yaml", "checkpoints"
CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
PATHS = (("data", "logs"), ("data", "ingest.policies"), ("data", "ingest.cache"), ("model", "init_from"))  # of options


class RunFolder:
    """A folder that no other run writes to until it is released.

    Args:
        path: made, with its parents, where there is none.

    Raises:
        UserError: when another process writes to it, or when it cannot be made.
    """

    def __init__(self, path: Path):
        self.path = path
        self._made: list[Path] = []
        try:
            self._make(path)
            self._lock = _locked(path / IN_USE)
        except OSError as error:
            self._remove_made()
            raise _no_place(path, error) from error
        if self._lock is None:
            raise UserError(
                f"{shown(path)} is in use by {_user_of(path)}; wait for it, or name another --trainer.default_root_dir"
            )

    @classmethod
    def numbered(cls, parent: Path, name: str) -> "RunFolder":
        """parent/name-0, or the first number that nobody has: who makes the folder has it, also of two at a time."""
        made = [parent] if not parent.exists() else []
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = _new(parent, name)
        except OSError as error:
            raise _no_place(parent, error) from error
        folder = cls(path)
        folder._made = [*made, path]
        return folder

    def release(self) -> None:
        """Let others have it; a folder that was made for this run is removed when nothing came into it."""
        if self._lock is not None:
            (self.path / IN_USE).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None
        self._remove_made()

    def _make(self, path: Path) -> None:
        if not path.exists():
            self._make(path.parent)
            path.mkdir(exist_ok=True)
            self._made.append(path)

    def _remove_made(self) -> None:
        for path in reversed(self._made):
            try:
                path.rmdir()
            except OSError:  # it holds something
                return


def _new(parent: Path, name: str) -> Path:
    """The folder parent/name-N of the first number that nobody has, made."""
    for number in itertools.count():
        path = parent / f"{name}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("there are infinitely many numbers")


def _no_place(path: Path, error: OSError) -> UserError:
    """The error about a folder that a run cannot be in."""
    return UserError(
        f"{shown(path)} cannot hold a run: {error.strerror or error}; name another --trainer.default_root_dir"
    )


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock on `path`; None when another process has it.

    A lock of POSIX: it ends with the process, and the processes that it forks do not inherit it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        # Who had it before may have removed the file between the two lines above.
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        os.close(descriptor)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return descriptor


def _user_of(folder: Path) -> str:
    try:
        return read_text(folder / IN_USE).strip() or "another run"
    except UserError:  # it has just been released
        return "another run"


def folder_of(checkpoint: str | Path) -> Path | None:
    """The folder of the run that a checkpoint lies in, wherever it was moved; None outside of one."""
    path = Path(absolute(checkpoint))
    return path.parent.parent if path.parent.name == CHECKPOINTS else None


def holds_a_run(folder: Path) -> bool:
    """Whether a folder has checkpoints where a run keeps them."""
    return any((folder / CHECKPOINTS).glob("*.ckpt"))


def beginning_of(config: Any) -> str:
    """How the name of a run's folder begins: as its task's, as the class of a simulation, or `logs`."""
    task = config.data.get("task")
    if task is None:
        return "logs"
    if not isinstance(task, str):
        task = task.class_path
    return (task.rpartition(".")[2] if CLASS_PATH.fullmatch(task) else task).replace("/", "-")


def choose(named: str | None, checkpoint: str | None, configs: Sequence[str]) -> Path | None:
    """Where a run that is to begin, or to go on from `checkpoint`, belongs; None for a new folder.

    A resumed run goes on where its checkpoint lies, unless another folder is named that holds no run.

    Args:
        named: `trainer.default_root_dir`.
        checkpoint: to resume from.
        configs: configuration files that were given. The one of the run itself may say where the run was when it
            began, which is not where it is.

    Raises:
        UserError: when the named folder holds another run, or none is named by an empty text.
    """
    if named is not None and not named.strip():
        raise UserError("trainer.default_root_dir names nothing; give a folder, or leave it out")
    own = None if checkpoint is None else folder_of(checkpoint)
    if named is None or (own is not None and any(_left_behind(config, own, named) for config in configs)):
        return own
    folder = Path(absolute(named))
    if holds_a_run(folder) and not (own is not None and _same(own, folder)):
        if checkpoint is None:
            raise UserError(
                f"{shown(folder)} already holds a run; resume it with --ckpt_path "
                f"{shown(folder)}/{CHECKPOINTS}/last.ckpt, or name another --trainer.default_root_dir"
            )
        raise UserError(
            f"{shown(folder)} holds a run that {checkpoint} is not of, and would be overwritten; leave "
            "--trainer.default_root_dir out to go on where the checkpoint lies, or name another"
        )
    return folder


def with_absolute_paths(config: Any) -> None:
    """Make the paths in a configuration absolute, in place: it is to be used from another working folder too.

    Raises:
        UserError: when one is empty, which would be the working folder.
    """
    for group, option in PATHS:
        value = config[group].get(option)
        paths = value if isinstance(value, list) else [value]
        if "" in map(str, paths):
            raise UserError(f"{group}.{option} names nothing; give a path, or leave it out")
        if isinstance(value, list):
            config[group][option] = [absolute(path) for path in value]
        elif value is not None:
            config[group][option] = absolute(value)
    for name, value in list(config["model"].items()):  # of all its parts, by dotted names
        # a folder, or the id of a hub
        if name.endswith(".pretrained") and isinstance(value, str) and os.path.isdir(os.path.expanduser(value)):
            config["model"][name] = absolute(value)


def absolute(path: str | Path) -> str:
    """The path from the root; `~` is the user's own folder, also where no shell has read it, as in `--option=~/x`."""
    return os.path.abspath(os.path.expanduser(path))


def shown(path: Path) -> str:
    """A path as a user would type it: relative where it lies below the working folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _left_behind(config: str, run: Path, named: str) -> bool:
    """Whether `config` is that of the run, and the folder that is named is what it says."""
    if not _same(Path(config), run / CONFIG):
        return False
    trainer = yaml.safe_load(read_text(config)).get("trainer")
    return isinstance(trainer, dict) and trainer.get("default_root_dir") == named


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
