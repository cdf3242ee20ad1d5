"""Which logs are meant by paths, of which some are folders or hold what is no log of ours."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gipo.common.errors import UserError
from robots.log.reader import read_header, verify
from robots.log.scan import TORN, StrangeLog

Named = str | os.PathLike[str]
SET_ASIDE = "SET_ASIDE.txt"  # is in a folder of damaged logs, which is left out of the folders above it


def files_below(folder: Path) -> list[Path]:
    """Every `*.mcap` below a folder, in the order of the names; each once, by its own name where links lead to it."""
    logs = (each for inner in folders_below(folder) for each in inner.glob("*.mcap") if each.is_file())
    found = sorted(logs, key=lambda each: each.resolve() != folder.resolve() / each.relative_to(folder))
    once: dict[Path, Path] = {}
    for each in found:
        once.setdefault(each.resolve(), each)
    return sorted(once.values())


def folders_below(folder: Path) -> Iterator[Path]:
    """A folder and every one below it, then those that links lead to; each once, though they lead in circles.

    Those below it that damaged logs were set aside in are left out.
    """
    seen, tops = set(), [folder]
    while tops:
        linked: list[Path] = []
        for top in tops:
            for inner, names, files in os.walk(top):  # which follows no link
                if (real := os.path.realpath(inner)) in seen or (SET_ASIDE in files and Path(inner) != folder):
                    names.clear()
                    continue
                seen.add(real)
                yield Path(inner)
                linked += [Path(inner, name) for name in sorted(names) if os.path.islink(os.path.join(inner, name))]
        tops = linked


def out_of_reach(folder: Path) -> list[tuple[Path, str]]:
    """What may hold logs in a folder and cannot be looked into, and why: folders, and links that lead nowhere.

    Hidden links, such as the locks of an editor, are meant to.
    """
    closed = "no permission to look into this folder"
    found = [] if _is_open(folder) else [(folder, closed)]
    for path in sorted(each for inner in folders_below(folder) for each in inner.iterdir()):
        if os.path.islink(path) and not os.path.exists(path) and not path.name.startswith("."):
            found.append((path, f"a link to {os.readlink(path)}, which is not there"))
        elif os.path.isdir(path) and not _is_open(path):
            found.append((path, closed))
    return found


def _is_open(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def logs_below(named: Iterable[Named]) -> list[Path]:
    """Files as they are named; for a folder, those of `files_below`.

    Raises:
        UserError: when there is none in a folder.
    """
    found: list[Path] = []
    for path in map(Path, named):
        if path.is_dir():
            below = files_below(path)
            if not below:
                lost = "".join(f"; {each}: {reason}" for each, reason in out_of_reach(path))
                raise UserError(f"no log at or below {path}: it holds no *.mcap{lost}")
            found += below
        else:
            found.append(path)
    return found


def find_logs(named: Iterable[Named]) -> tuple[list[Path], list[str]]:
    """The logs that are meant, and why others of several files were left out: foreign, newer, or torn before any row.

    Beside these, what of a folder cannot be looked into.

    Raises:
        UserError: when a file is missing, or nothing is left; a single file is never left out.
    """
    meant = list(map(Path, named))
    paths = logs_below(meant)
    lost = [f"{each}: {reason}" for path in meant if path.is_dir() for each, reason in out_of_reach(path)]
    if len(paths) == 1:
        return paths, lost
    kept, left_out = without_strangers(paths)
    left_out += lost
    for path in [path for path in kept if _is_empty(path)]:
        kept.remove(path)
        left_out.append(f"{path} ends before it says whose log it is")
    if not kept:
        raise UserError("; ".join(left_out) or "no log is named")
    return kept, left_out


def without_strangers(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Those files that are ours to read or to refuse, and about each of the others why it is foreign or newer."""
    kept: list[Path] = []
    left_out: list[str] = []
    for path in paths:
        try:
            read_header(path)
        except StrangeLog as error:
            left_out.append(str(error))
            continue
        except UserError:
            pass  # its reader says what is wrong, and where
        kept.append(path)
    return kept, left_out


def _is_empty(path: Path) -> bool:
    """Whether nothing of a log reached the disk but its beginning, as when power fails at once."""
    try:
        return read_header(path) is None and verify(path).status == TORN
    except UserError:
        return False  # its reader says what is wrong
