"""Damaged logs set aside: the log and its labels move together, unaltered, and overwrite nothing."""

import filecmp
import os
import shutil
from pathlib import Path

from gipo.common.errors import UserError
from gipo.common.files import locked, sync, whole_file
from robots.log import SET_ASIDE, files_below, labels_path

_MARK = """Damaged logs, moved here by `gipo-robot verify --quarantine`.
Commands that are given a folder above this one leave it out; one that is given this folder itself looks into it.
"""


def check_quarantine(folder: Path) -> None:
    """Refuse a folder whose logs would be hidden if damaged ones were set aside there.

    Raises:
        UserError: when it is a file, or holds logs and was not made for damaged ones.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--quarantine {folder} is no folder")
    if folder.exists() and not (folder / SET_ASIDE).exists() and (there := files_below(folder)):
        raise UserError(
            f"--quarantine {folder} holds {there[0]} and no {SET_ASIDE}: it is none of damaged logs; name a new one"
        )


def set_aside(log: Path, folder: Path) -> list[Path]:
    """Move a log, and the labels beside it, into a folder; where they are now.

    Each gets its new name before any loses its old one: a kill in between leaves both, and the next call goes on. Two
    calls with one folder wait for each other: what one of them undoes might be all that the other has left.

    Raises:
        UserError: when a file of that name is there already, the folder cannot be written or is the log's own by
            another path, or the log is a link; then nothing moved. Or another call has moved it.
    """
    if log.is_symlink():
        raise UserError(f"{log} is a link to {log.resolve()}, which stays where it is; name the file itself")
    if folder.exists() and folder.samefile(log.parent):  # also where it is mounted, or spelt, in two ways
        raise UserError(f"{log} lies in {folder} already and stays there")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            return _move(log, folder)
    except OSError as error:
        reason = "exists" if isinstance(error, FileExistsError) else f"cannot be written: {error.strerror or error}"
        raise UserError(f"{folder / log.name} or its labels: {reason}; {log} stays where it is") from error


def _move(log: Path, folder: Path) -> list[Path]:
    if not log.exists():
        raise UserError(f"{log} is not there any more: another process has moved it")
    files = [path for path in (log, labels_path(log)) if path.exists()]
    targets = [folder / path.name for path in files]
    made: list[Path] = []
    try:
        if not (mark := folder / SET_ASIDE).exists():
            made.append(mark)
            mark.write_text(_MARK, encoding="utf-8")
        for path, target in zip(files, targets, strict=True):
            if not _is_there(path, target):
                _give_name(path, target)
                made.append(target)
        sync(folder)
    except OSError:
        for target in made:
            target.unlink(missing_ok=True)
        raise
    for number, path in enumerate(files):
        try:
            path.unlink()
        except OSError as error:
            for target in targets[number:]:
                target.unlink()
            raise UserError(f"{path} cannot be moved: {error.strerror or error}; it stays where it is") from error
    return targets


def _is_there(path: Path, target: Path) -> bool:
    """Whether `target` holds what `path` holds, as after a kill of an earlier call."""
    return target.exists() and (path.samefile(target) or filecmp.cmp(path, target, shallow=False))


def _give_name(path: Path, target: Path) -> None:
    """Make `target` hold what `path` holds, whole or not at all; FileExistsError where it exists."""
    try:
        os.link(path, target)
    except FileExistsError:
        if target.stat().st_size:
            raise
        _copy(path, target)
    except OSError:  # another file system, or one without links
        _copy(path, target)


def _copy(path: Path, target: Path) -> None:
    if not target.exists() or target.stat().st_size:  # an empty one is of a call that was killed
        with open(target, "xb"):
            pass  # reserves the name
    try:
        with whole_file(target) as copy:
            shutil.copy2(path, copy)
    except BaseException:
        target.unlink()
        raise
