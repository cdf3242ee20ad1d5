"""Which logs are meant by paths, of which some are folders or hold what is no log of ours."""

import os
from collections.abc import Iterable
from pathlib import Path

from robots.errors import LogError, StrangeLog
from robots.log.reader import read_header

Named = str | os.PathLike[str]


def logs_below(named: Iterable[Named]) -> list[Path]:
    """Files as they are named; for a folder, every `*.mcap` below it, in the order of the names.

    Raises:
        LogError: when there is none in a folder.
    """
    found: list[Path] = []
    for path in map(Path, named):
        if path.is_dir():
            below = sorted(each for each in path.rglob("*.mcap") if each.is_file())
            if not below:
                raise LogError(f"no log at or below {path}: it holds no *.mcap")
            found += below
        else:
            found.append(path)
    return found


def find_logs(named: Iterable[Named]) -> tuple[list[Path], list[str]]:
    """The logs that are meant, and what was left out of several files because it is foreign or of a newer schema.

    Raises:
        LogError: when a file is missing, or nothing is left; a single file is never left out.
    """
    paths = logs_below(named)
    if len(paths) == 1:
        return paths, []
    kept, left_out = without_strangers(paths)
    if not kept:
        raise LogError("; ".join(left_out) or "no log is named")
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
        except LogError:
            kept.append(path)  # its reader says what is wrong, and where
        else:
            kept.append(path)
    return kept, left_out
