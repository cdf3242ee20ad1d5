"""`gipo-robot verify`: what each file is, down to its last byte, and damaged ones set aside."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from gipo.common.errors import UserError
from robots.log import DAMAGED, FOREIGN, NEWER, SEALED, Integrity, logs_below, out_of_reach, verify
from robots.review.quarantine import check_quarantine, set_aside

UNREADABLE = "unreadable"


def verdicts(named: Iterable[str | Path], quarantine: str | Path | None = None) -> Iterator[str]:
    """A line about every file's integrity, as soon as it is read; of a file that is named twice, one.

    Args:
        named: files, and folders of logs.
        quarantine: folder that damaged logs are moved to, with their labels.

    Raises:
        UserError: before the first line, when damaged logs cannot be set aside in that folder; after the last one, when
            a file is neither sealed nor torn or could not be moved, naming how many.
    """
    aside = None if quarantine is None else Path(quarantine)
    if aside is not None:
        check_quarantine(aside)
    counts: Counter[str] = Counter()
    stayed = ""
    paths = list(map(Path, named))
    for path in _once(logs_below(paths)):
        try:
            found = verify(path)
        except UserError as error:
            counts[UNREADABLE] += 1
            yield f"{UNREADABLE} {error}"
            continue
        counts[found.status] += 1
        yield line(path, found)
        if found.status == DAMAGED and aside is not None:
            try:
                yield f"         moved to {', '.join(map(str, set_aside(path, aside)))}, unaltered"
            except UserError as error:
                stayed += f"; {error}"
    for path, reason in (each for folder in paths if folder.is_dir() for each in out_of_reach(folder)):
        counts[UNREADABLE] += 1
        yield f"{UNREADABLE} {path}: {reason}"
    if reason := summary(counts):
        raise UserError(f"{reason}{stayed}")


def _once(paths: Iterable[Path]) -> Iterable[Path]:
    """Each file by the first of its names."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return found.values()


def line(path: Path, found: Integrity) -> str:
    """One file's line: verdict, path, what is good, and what is wrong."""
    if found.status in (FOREIGN, NEWER):
        return f"{found.status:<8} {path}: {found.reason}"
    tail = f", {found.tail:,} bytes behind byte {found.valid:,}" if found.status != SEALED else ""
    return f"{found.status:<8} {path}: {found.messages:,} messages{tail}{': ' if found.reason else ''}{found.reason}"


def summary(counts: Counter[str]) -> str:
    """How many files are not sound logs, by what they are; empty when all are."""
    bad = {status: counts[status] for status in (DAMAGED, FOREIGN, NEWER, UNREADABLE) if counts[status]}
    if not bad:
        return ""
    number, total = sum(bad.values()), sum(counts.values())
    kinds = ", ".join(f"{count} {status}" for status, count in bad.items())
    return f"{number} of {total} files {'are' if number > 1 else 'is'} not sound: {kinds}"
