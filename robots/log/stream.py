"""Logs episode by episode, in memory that one episode bounds."""

import os
from collections.abc import Iterator

from gipo.common.errors import UserError
from gipo.common.interpreter import no_garbage_collection
from robots.log.columns import Collector, Keep
from robots.log.episode import Episode
from robots.log.header import Header
from robots.log.labels import Label, read_labels, unused_labels
from robots.log.reader import refuse_unreadable
from robots.log.scan import Integrity, Scanner, open_regular


class LogStream:
    """The episodes of one log, each as soon as a later one begins; columns and events as `read_log` gives them.

    Rows of shadow policies are left out: they are written late, so that waiting for them would hold episodes back.

    Args:
        path: the file.
        keep: as `Collector` takes it.
    """

    def __init__(self, path: str | os.PathLike[str], keep: Keep | None = None):
        self.path, self._keep = path, keep
        self.header: Header | None = None  # known with the first episode; still None where a torn file ends before it
        self.integrity: Integrity | None = None  # known after the last
        self.unused_labels = ""  # which labels say nothing of these episodes, in words; known after the last

    def __iter__(self) -> Iterator[Episode]:
        """Read the log from its start, episode by episode.

        Raises:
            UserError: when a row is of another form, or, after the episodes before it, naming the byte of a damage.
        """
        collector = Collector(self.path, whole=False, keep=self._keep)
        labels: dict[int, Label] = {}
        unreadable: list[int] = []
        seen: set[int] = set()
        with open_regular(self.path) as file:
            scanner = Scanner(file)
            blocks = scanner.blocks()
            while True:
                with no_garbage_collection():
                    block = next(blocks, None)
                    if block is None:
                        break
                    collector.take(block)
                    finished = collector.followed(labels)
                if self.header is None and scanner.header is not None:
                    self.header = scanner.header
                    labels, unreadable = read_labels(self.path, self.header.session)
                yield from self._new(finished, seen)
        self.integrity = scanner.integrity
        refuse_unreadable(self.path, self.integrity)
        yield from self._new(collector.episodes(labels), seen)
        seen |= {episode.number for episode in collector.stepless(labels)}
        self.unused_labels = unused_labels(labels, unreadable, seen)

    def _new(self, episodes: list[Episode], seen: set[int]) -> Iterator[Episode]:
        for episode in episodes:
            if episode.number in seen:
                raise UserError(f"{self.path}: episode {episode.number} goes on after a later one began")
            seen.add(episode.number)
            if self.header is not None:
                self.header.check_rows(f"{self.path}: episode {episode.number}", episode.columns)
            yield episode
