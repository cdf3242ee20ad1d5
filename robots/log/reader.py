"""Logs as columns: one set of numpy arrays per episode, ready for a dataset.

`read_log` takes what is good of a torn file and refuses a damaged one; nothing here ever writes to a log.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gipo.common.errors import UserError
from gipo.common.interpreter import no_garbage_collection
from robots.log.columns import Collector
from robots.log.episode import Episode
from robots.log.header import Header
from robots.log.labels import read_labels, unused_labels
from robots.log.scan import DAMAGED, FOREIGN, NEWER, Integrity, Scanner, StrangeLog, open_regular


@dataclass
class Log:
    """A whole log in memory: header, episodes, events, and whether the file was sound."""

    header: Header
    episodes: list[Episode]
    events: list[dict[str, Any]]
    integrity: Integrity
    unused_labels: str = ""  # which lines of labels say nothing of these episodes, in words
    stepless: list[Episode] = field(default_factory=list)  # that began, and of which no step was logged
    images: bool = False  # whether cameras saw something, be it for the log alone

    @property
    def begun(self) -> list[Episode]:
        """All episodes that began, those without a step among them."""
        return sorted([*self.episodes, *self.stepless], key=lambda episode: episode.number)

    @property
    def dropped(self) -> int:
        """Steps that the writer says it had no room for."""
        return sum(event["data"]["count"] for event in self.events if event["kind"] == "dropped")


def read_log(path: str | os.PathLike[str], salvage: bool = False) -> Log:
    """Read a log into columns.

    Args:
        path: the file.
        salvage: take what precedes the damage of a damaged file instead of refusing it.

    Raises:
        UserError: naming the byte, when the file is damaged; or when it is no log, or one of a later schema.
    """
    with open_regular(path) as file, no_garbage_collection():
        scanner = Scanner(file)
        collector = Collector(path)
        for block in scanner.blocks():
            collector.take(block)
    header, integrity = header_of(path, scanner, salvage), scanner.integrity
    labels, unreadable = read_labels(path, header.session)
    stepless = collector.stepless(labels)
    log = Log(header, collector.episodes(labels), collector.events, integrity, "", stepless, collector.images)
    for episode in log.episodes:
        header.check_rows(f"{path}: episode {episode.number}", episode.columns)
    log.unused_labels = unused_labels(labels, unreadable, {episode.number for episode in log.begun})
    return log


def read_logs(paths: Iterable[str | Path]) -> Iterator[tuple[str | Path, Log]]:
    """Read one log after the other, so that memory holds as many as the caller keeps.

    Raises:
        UserError: as `read_log` does, and where two paths lead to the same session.
    """
    seen: dict[str, str | Path] = {}
    for path in paths:
        log = read_log(path)
        if log.header.session in seen:
            raise UserError(f"{seen[log.header.session]} and {path} are the same session; name one of them")
        seen[log.header.session] = path
        yield path, log


def read_header(path: str | os.PathLike[str]) -> Header | None:
    """What a log says of itself at its start; None when it ends, or is damaged, before that.

    Raises:
        UserError: when there is no such file, or it is no log, or one of a later schema.
    """
    with open_regular(path) as file:
        scanner = Scanner(file)
        for _ in scanner.blocks():
            if scanner.header is not None:
                return scanner.header
    if scanner.integrity.status in (FOREIGN, NEWER):
        refuse_unreadable(path, scanner.integrity)
    return None


def header_of(path: str | os.PathLike[str], scanner: Scanner, salvage: bool = False) -> Header:
    """What a log says of itself, once it is read as far as it goes; `salvage` takes one that is damaged behind that.

    Raises:
        UserError: as `refuse_unreadable` does, and where the log ends before it says whose it is.
    """
    if scanner.integrity.status != DAMAGED or not (salvage and scanner.header):
        refuse_unreadable(path, scanner.integrity)
    if scanner.header is None:
        raise UserError(f"{path} ends before it says whose log it is: {scanner.integrity.reason or 'no session'}")
    return scanner.header


def refuse_unreadable(path: str | os.PathLike[str], found: Integrity) -> None:
    """Refuse a log that is not to be read; sealed and torn ones pass.

    Raises:
        StrangeLog: about a foreign file, or one of a later schema.
        UserError: about a damaged one, naming the byte.
    """
    if found.status == FOREIGN:
        raise StrangeLog(f"{path} is no log of gipo-robot: {found.reason}")
    if found.status == NEWER:
        raise StrangeLog(f"{path}: {found.reason}")
    if found.status == DAMAGED:
        raise UserError(f"{path} is damaged from byte {found.valid} of {found.size}: {found.reason}")


def verify(path: str | os.PathLike[str]) -> Integrity:
    """Check every byte of a log without parsing its rows.

    Raises:
        UserError: when there is no such file.
    """
    with open_regular(path) as file:
        scanner = Scanner(file)
        for _ in scanner.blocks():
            pass
    return scanner.integrity
