"""From the rows of a log to columns: arrays of each block of the file, so that parsed JSON never piles up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import orjson
from mcap.records import Metadata

from gipo.common.errors import UserError
from gipo.common.transition import LOGGED, complete
from robots.log.episode import Episode
from robots.log.header import Header, parse_header
from robots.log.labels import Label
from robots.log.scan import Message

# What becomes an array [T, …]: the episode's number is the same for all rows, and the gate's reasons are kept apart.
_ARRAYS = tuple(field for field in LOGGED if field.name not in ("episode", "gate"))


class Collector:
    """Sorts the rows of a log into episodes, as arrays of each block of the file.

    Args:
        shadows: whether rows of shadow policies are kept.
    """

    def __init__(self, shadows: bool = True) -> None:
        self._keep_shadows = shadows
        self.header: Header | None = None
        self._blocks: dict[int, list[dict[str, np.ndarray]]] = {}
        self._gates: dict[int, dict[int, list[str]]] = {}
        self._lengths: dict[int, int] = {}
        self._shadows: dict[int, list[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []

    def take(self, item: Metadata | list[Message]) -> None:
        """Take the messages of one block, or the session's metadata; later metadata are not the session's.

        Raises:
            UserError: when they are of another form than the writer's.
        """
        if isinstance(item, list):
            self._messages(item)
        elif self.header is None:
            self.header = parse_header(item)

    def _messages(self, messages: list[Message]) -> None:
        steps = [data for topic, data in messages if topic == "step"]
        with _of_our_writer():
            if steps:
                self._steps(orjson.loads(b"[" + b",".join(steps) + b"]"))
            for topic, data in messages:
                if topic == "event":
                    self.events.append(_event(orjson.loads(data)))
                elif topic == "shadow" and self._keep_shadows:
                    row = _shadow(orjson.loads(data))
                    self._shadows.setdefault(row["episode"], []).append(row)

    def _steps(self, rows: list[dict[str, Any]]) -> None:
        numbers = [row["episode"] for row in rows]
        start = 0
        for stop in range(1, len(rows) + 1):
            if stop == len(rows) or numbers[stop] != numbers[start]:
                self._block(int(numbers[start]), rows[start:stop])
                start = stop

    def _block(self, episode: int, rows: list[dict[str, Any]]) -> None:
        length = self._lengths.get(episode, 0)
        with _of_our_writer(f"episode {episode}, from step {rows[0].get('step')}: "):
            block = _columns(rows)
        self._blocks.setdefault(episode, []).append(block)
        for index, row in enumerate(rows):
            if row["gate"]:
                self._gates.setdefault(episode, {})[length + index] = row["gate"]
        self._lengths[episode] = length + len(rows)

    def episodes(self, labels: dict[int, Label]) -> list[Episode]:
        """What was taken, in the order of the episodes' numbers.

        Raises:
            UserError: when an episode changes its shape half-way.
        """
        return self._made(sorted(self._blocks), labels)

    def followed(self, labels: dict[int, Label]) -> list[Episode]:
        """The episodes that a later one follows, in the order they began; they, and their events, are forgotten here.

        Raises:
            UserError: when an episode changes its shape half-way.
        """
        if len(self._blocks) < 2:
            return []
        numbers = list(self._blocks)[:-1]
        found = self._made(numbers, labels)
        for number in numbers:
            del self._blocks[number], self._lengths[number]
            self._gates.pop(number, None)
            self._shadows.pop(number, None)
        gone = set(numbers)
        self.events = [event for event in self.events if event["episode"] not in gone]
        return found

    def _made(self, numbers: list[int], labels: dict[int, Label]) -> list[Episode]:
        of_episode: dict[int, list[dict[str, Any]]] = {}
        for event in self.events:
            of_episode.setdefault(event["episode"], []).append(event)
        return [
            Episode(
                number,
                _joined(number, self._blocks[number]),
                self._gates.get(number, {}),
                of_episode.get(number, []),
                self._shadows.get(number, []),
                labels.get(number),
            )
            for number in numbers
        ]


@contextmanager
def _of_our_writer(where: str = "") -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise UserError(f"{where}a row that no log of gipo-robot holds: {type(error).__name__} {error}") from error


def _joined(number: int, blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    try:
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    except ValueError as error:
        raise UserError(f"episode {number} changes its shape half-way: {error}") from error


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """[T] and [T, n] arrays of rows; ragged or non-numeric rows raise ValueError or TypeError."""
    there = [field for field in _ARRAYS if not field.later or field.name in rows[0]]
    columns = {field.name: field.parsed([row[field.name] for row in rows]) for field in there}
    complete(columns, _ARRAYS)
    return columns


# What the readers of events rely on: kind → key of its data → type.
_EVENT_DATA: dict[str, dict[str, type]] = {"dropped": {"count": int}, "outcome": {"success": bool}}


def _event(raw: dict[str, Any]) -> dict[str, Any]:
    if type(raw["episode"]) is not int or not isinstance(raw["kind"], str) or not isinstance(raw["data"], dict):
        raise TypeError("an event of unknown form")
    if type(raw["step"]) is not int or not isinstance(raw["reason"], str):
        raise TypeError("an event of unknown form")
    for key, kind in _EVENT_DATA.get(raw["kind"], {}).items():
        if type(raw["data"][key]) is not kind:
            raise TypeError(f"an event {raw['kind']!r} of unknown form")
    return raw


def _shadow(raw: dict[str, Any]) -> dict[str, Any]:
    np.array([raw["log_prob"], raw["deterministic_action"]], np.float64)
    if not all(type(raw[name]) is int for name in ("episode", "step", "policy_version")):
        raise TypeError("a shadow of unknown form")
    return raw
