"""Logs as columns: one set of numpy arrays per episode, ready for a dataset.

`read_log` takes what is good of a torn file and refuses a damaged one; nothing here ever writes to a log.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mcap.records import Metadata

from robots.errors import LogError
from robots.log.columns import Collector
from robots.log.episode import Episode
from robots.log.labels import read_labels
from robots.log.scan import DAMAGED, Integrity, Scanner, open_regular
from robots.log.session import Header, parse_header


@dataclass
class Log:
    """A whole log."""

    header: Header
    episodes: list[Episode]
    events: list[dict[str, Any]]
    integrity: Integrity
    unreadable_labels: int = 0

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
        LogError: naming the byte, when the file is damaged; or when it is no log at all.
    """
    with open_regular(path) as file, no_garbage_collection():
        scanner = Scanner(file)
        collector = Collector()
        try:
            for item in scanner.items():
                if isinstance(item, Metadata):
                    collector.metadata(item)
                else:
                    collector.messages(item)
        except LogError as error:
            raise LogError(f"{path}: {error}") from error
    integrity = scanner.integrity
    assert integrity is not None
    if integrity.status == DAMAGED and not salvage:
        raise damaged(path, integrity)
    if collector.header is None:
        raise LogError(f"{path} ends before it says whose log it is: {integrity.reason or 'no session'}")
    labels, unreadable = read_labels(path, collector.header.session)
    try:
        episodes = collector.episodes(labels)
    except LogError as error:
        raise LogError(f"{path}: {error}") from error
    return Log(collector.header, episodes, collector.events, integrity, unreadable)


def read_header(path: str | os.PathLike[str]) -> Header | None:
    """What a log says of itself at its start; None when it ends, or is damaged, before that.

    Raises:
        LogError: when there is no such file, or it says something else.
    """
    with open_regular(path) as file:
        first = next(iter(Scanner(file).items()), None)
    try:
        return parse_header(first) if isinstance(first, Metadata) else None
    except LogError as error:
        raise LogError(f"{path}: {error}") from error


def damaged(path: str | os.PathLike[str], found: Integrity) -> LogError:
    """The error about a damaged log."""
    return LogError(f"{path} is damaged from byte {found.valid} of {found.size}: {found.reason}")


def verify(path: str | os.PathLike[str]) -> tuple[Integrity, Header | None]:
    """Check every byte without parsing the rows.

    Raises:
        LogError: when there is no such file.
    """
    header = None
    with open_regular(path) as file:
        scanner = Scanner(file)
        for item in scanner.items():
            if isinstance(item, Metadata) and header is None:
                try:
                    header = parse_header(item)
                except LogError as error:
                    return Integrity(DAMAGED, os.fstat(file.fileno()).st_size, 0, 0, str(error)), None
    assert scanner.integrity is not None
    return scanner.integrity, header


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Parsing makes millions of short-lived objects and no cycles; collecting in between triples the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
