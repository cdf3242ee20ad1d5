"""From the rows of a log to columns: arrays of each block of the file, so that parsed JSON never piles up."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from gipo.common.errors import UserError
from gipo.common.transition import LOGGED, Field, complete
from robots.log.episode import Episode, cameras_of
from robots.log.images import CHANNELS, file_of, image_row
from robots.log.labels import Label, is_reward
from robots.log.scan import Message
from robots.log.schema import TIMES

# Takes an image, its format and whether it can be decoded alone; gives the number that it is kept under.
Keep = Callable[[bytes, str, bool], int]
# What becomes an array [T, …]: the episode's number is the same for all rows, and the gate's reasons are kept apart.
_ARRAYS = tuple(each for each in LOGGED if each.name not in ("episode", "gate"))
_NO_STEPS = {each.name: each.parsed([]) for each in _ARRAYS if not each.shape}  # of vectors the size is not known


@dataclass
class _Rows:
    """What was taken of one episode so far: its `length` rows as columns of each block, and what stands beside them."""

    blocks: list[dict[str, np.ndarray]] = field(default_factory=list)
    length: int = 0
    gate: dict[int, list[str]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    shadows: list[dict[str, Any]] = field(default_factory=list)
    pictures: dict[int, list[int]] = field(default_factory=dict)
    waiting: dict[str, list[tuple[list[int], int, dict[str, Any]]]] = field(default_factory=dict)


class Collector:
    """Sorts the rows of a log into episodes, as arrays of each block of the file.

    Args:
        path: of the log, for messages.
        whole: whether rows of shadow policies are kept, and the events of all episodes together, in `events`.
        keep: is given every image that the policy of an episode saw; without it, images are passed over.
    """

    def __init__(self, path: str | os.PathLike[str], whole: bool = True, keep: Keep | None = None) -> None:
        self._path, self._whole, self._keep = path, whole, keep
        self._rows: defaultdict[int, _Rows] = defaultdict(_Rows)
        self.events: list[dict[str, Any]] = []
        self.images = False  # whether a camera's were there, whoever saw them

    def take(self, messages: list[Message]) -> None:
        """Take the messages of one block.

        Raises:
            UserError: when they are of another form than the writer's.
        """
        steps = [data for topic, data in messages if topic == "step"]
        with _of_our_writer(f"{self._path}: "):
            for number, rows in groupby(orjson.loads(b"[" + b",".join(steps) + b"]"), itemgetter("episode")):
                self._block(int(number), list(rows))
            for topic, data in messages:
                if topic == "event":
                    event = _event(orjson.loads(data))
                    self._rows[event["episode"]].events.append(event)
                    if self._whole:
                        self.events.append(event)
                elif topic == "shadow" and self._whole:
                    row = _shadow(orjson.loads(data))
                    self._rows[row["episode"]].shadows.append(row)
                elif topic in CHANNELS:
                    self.images = True
                    if self._keep is not None:
                        self._picture(image_row(data), self._keep)

    def _block(self, episode: int, rows: list[dict[str, Any]]) -> None:
        found = self._rows[episode]
        with _of_our_writer(f"{self._path}: episode {episode}, from step {rows[0].get('step')}: "):
            found.blocks.append(_columns(rows))
            found.gate |= {found.length + index: _reasons(row["gate"]) for index, row in enumerate(rows) if row["gate"]}
        found.length += len(rows)

    def _picture(self, row: dict[str, Any], keep: Keep) -> None:
        found = self._rows[row["episode"]]
        nothing: dict[str, Any] = {}
        begun = next((event["data"] for event in reversed(found.events) if event["kind"] == "episode_start"), nothing)
        cameras = cameras_of(begun)
        # A policy that takes an instruction sees; which cameras, the start of its episode says.
        if begun.get("instruction") and (camera := row.get("frame_id")) in cameras and row["step"] >= 0:
            if row.get("key", True):
                self._keep_waiting(found, camera, keep)
            elif camera not in found.waiting:
                raise UserError("a frame of a video has no key frame before it")
            numbers = found.pictures.setdefault(row["step"], [-1] * len(cameras))
            found.waiting.setdefault(camera, []).append((numbers, cameras.index(camera), row))

    def _keep_waiting(self, found: _Rows, camera: str, keep: Keep) -> None:
        """Keep what a camera saw since its last key frame, in one go: a block is of one camera."""
        for numbers, place, row in found.waiting.pop(camera, []):
            numbers[place] = keep(file_of(row), str(row.get("format")), bool(row.get("key", True)))

    def episodes(self, labels: dict[int, Label]) -> list[Episode]:
        """What was taken and is not forgotten yet, in the order of the episodes' numbers.

        Raises:
            UserError: when an episode changes its shape half-way.
        """
        return [self._episode(number, labels) for number in sorted(self._numbers())]

    def followed(self, labels: dict[int, Label]) -> list[Episode]:
        """The episodes that a later one follows, in the order they began; they, and their events, are forgotten here.

        Raises:
            UserError: when an episode changes its shape half-way.
        """
        return [self._episode(number, labels) for number in self._numbers()[:-1]]

    def stepless(self, labels: dict[int, Label]) -> list[Episode]:
        """The episodes that began and of which no step was taken; what was said of them counts all the same."""
        begun = {number: rows.events for number, rows in self._rows.items() if not rows.blocks}
        found = [Episode(number, _NO_STEPS, events=begun[number], label=labels.get(number)) for number in sorted(begun)]
        return [episode for episode in found if episode.event("episode_start") is not None]

    def _numbers(self) -> list[int]:
        return [number for number, rows in self._rows.items() if rows.blocks]

    def _episode(self, number: int, labels: dict[int, Label]) -> Episode:
        rows = self._rows.pop(number)
        with _of_our_writer(f"{self._path}: episode {number}: "):
            for camera in list(rows.waiting):
                assert self._keep is not None
                self._keep_waiting(rows, camera, self._keep)
        try:
            names = dict.fromkeys(chain.from_iterable(rows.blocks))
            columns = {name: np.concatenate([block[name] for block in rows.blocks]) for name in names}
        except (ValueError, KeyError) as error:
            raise UserError(f"{self._path}: episode {number} changes its shape half-way: {error}") from error
        return Episode(number, columns, rows.gate, rows.events, rows.shadows, labels.get(number), rows.pictures)


@contextmanager
def _of_our_writer(where: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise UserError(f"{where}a row that no log of gipo-robot holds: {type(error).__name__} {error}") from error


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """[T] and [T, n] arrays of rows; ragged or non-numeric rows raise ValueError or TypeError."""
    there = [each for each in _ARRAYS if _is_said(rows, each)]
    columns = {each.name: each.parsed(_said(rows, each)) for each in there}
    sizes: dict[str, tuple[int, ...]] = {"": (), str(len(TIMES)): (len(TIMES),)}
    for each in there:  # a symbol of a shape is one size, as that of all actions
        if columns[each.name].shape[1:] != sizes.setdefault(each.shape, columns[each.name].shape[1:]):
            raise ValueError(f"{each.name} of another size")
    complete(columns, _ARRAYS)
    return columns


def _is_said(rows: list[dict[str, Any]], field: Field) -> bool:
    if field.silent:
        return any(row.get(field.name) is not None for row in rows)
    return not field.later or field.name in rows[0]


def _said(rows: list[dict[str, Any]], field: Field) -> list[Any]:
    """What rows say of a field; where one says nothing, what it is then."""
    values = [row[field.name] for row in rows]
    if field.absent_as:
        return [row[field.absent_as] if value is None else value for row, value in zip(rows, values, strict=True)]
    return values


def _reasons(said: Any) -> list[str]:
    """What the gate changed at a step."""
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise TypeError("reasons of the gate, of unknown form")
    return said


# What the readers of events and shadows rely on: key → type, also of the data of some kinds of events.
_EVENT: dict[str, type] = {"episode": int, "step": int, "kind": str, "reason": str, "data": dict}
_EVENT_DATA: dict[str, dict[str, type]] = {
    "dropped": {"count": int},
    "outcome": {"success": bool},
    "handback": {"decisions": int},
}
_SHADOW: dict[str, type] = {"episode": int, "step": int, "policy_version": int}


def _event(raw: dict[str, Any]) -> dict[str, Any]:
    _check("an event", raw, _EVENT)
    data = raw["data"]
    _check(f"an event {raw['kind']!r}", data, _EVENT_DATA.get(raw["kind"], {}))
    judged = all(type(data.get(field, False)) is bool for field in ("success", "discard"))
    reward = data.get("reward", 0.0)
    if raw["kind"] == "said" and not (judged and is_reward(reward) and reward is not None):
        raise TypeError("what a person said, of unknown form")
    return raw


def _shadow(raw: dict[str, Any]) -> dict[str, Any]:
    np.array([raw["log_prob"], raw["deterministic_action"]], np.float64)
    _check("a shadow", raw, _SHADOW)
    return raw


def _check(what: str, raw: dict[str, Any], kinds: dict[str, type]) -> None:
    if any(type(raw[key]) is not kind for key, kind in kinds.items()):
        raise TypeError(f"{what} of unknown form")
