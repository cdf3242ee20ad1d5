"""Logs as columns: one set of numpy arrays per episode, ready for a dataset.

`read_log` takes what is good of a torn file and refuses a damaged one; nothing here ever writes to a log.
"""

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import orjson
from mcap.records import Metadata

from robots.errors import LogError
from robots.log.labels import Label, read_labels
from robots.log.scan import DAMAGED, Integrity, Message, Scanner, open_regular
from robots.log.schema import SCHEMA, TIMES
from robots.log.writer import SESSION, digest

# Columns of one value a step, and of a vector a step.
_SCALARS: dict[str, type] = {
    "step": np.int64,
    "wall_ns": np.int64,
    "monotonic_ns": np.int64,
    "policy_version": np.int64,
    "valid": np.bool_,
    "reward": np.float32,
    "terminated": np.bool_,
    "truncated": np.bool_,
}
_VECTORS: dict[str, type] = {
    "observation": np.float32,
    "action": np.float32,
    "sent_action": np.float64,
    "log_prob": np.float32,
    "timing_us": np.int64,
}


@dataclass
class Header:
    """What a log says of itself, checked against its digest.

    Args:
        session: identity of the log.
        created: ISO 8601, UTC.
        robot: the robot's spec, plain data.
        settings: how the session was run.
        manifests: policy_id → manifest as JSON.

    """

    session: str
    created: str
    robot: dict[str, Any]
    settings: dict[str, Any]
    manifests: dict[str, str]


@dataclass
class Episode:
    """One episode of T logged steps, in the order of `step`; gaps in `step` are rows that were dropped.

    Shapes: observation [T, O] f32; latent [T, D] int64 or f32; action, log_prob [T, D] f32; sent_action [T, D] f64;
    timing_us [T, len(TIMES)]; step, wall_ns, monotonic_ns, policy_version [T] int64;
    reward [T] f32; valid, terminated, truncated [T] bool.

    Args:
        number: of the episode within its session.
        columns: the arrays, by the names above.
        gate: index of a row → what the gate changed there.
        events: in order, plain data.
        shadows: rows of shadow policies, plain data.
        label: what a person said of it later.

    """

    number: int
    columns: dict[str, np.ndarray]
    gate: dict[int, list[str]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    shadows: list[dict[str, Any]] = field(default_factory=list)
    label: Label | None = None

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def event(self, kind: str) -> dict[str, Any] | None:
        """The data and fields of the last event of this kind, if there was one."""
        return next((event for event in reversed(self.events) if event["kind"] == kind), None)

    @property
    def policy_id(self) -> str | None:
        """Of the policy that acted."""
        start = self.event("episode_start")
        return None if start is None else start["data"].get("policy_id")

    @property
    def deterministic(self) -> bool:
        """Whether the policy's most likely action was taken instead of a sample."""
        start = self.event("episode_start")
        return start is not None and bool(start["data"].get("deterministic"))

    @property
    def success(self) -> bool | None:
        """The label's word, else the outcome event's; None when nobody said."""
        if self.label is not None and self.label.success is not None:
            return self.label.success
        outcome = self.event("outcome")
        if outcome is not None:
            return bool(outcome["data"]["success"])
        end = self.event("episode_end")
        return None if end is None else end["data"].get("success")

    @property
    def complete(self) -> bool:
        """Whether the log saw the episode end."""
        return self.event("episode_end") is not None

    @property
    def final_observation(self) -> np.ndarray | None:
        """[O] f32 seen after the last step; None when the log ends before."""
        end = self.event("episode_end")
        values = None if end is None else end["data"].get("final_observation")
        return None if values is None else np.array(values, np.float32)

    def transitions(self) -> dict[str, np.ndarray]:
        """The columns of every step whose next observation is known, with `next_observation`, `next_*` and `done`.

        A step before a gap, or before the end of a torn log, has none: it is left out, and the step before it is
        marked truncated, so that no return is computed across what is missing. Rewards include the label's.
        """
        length = len(self)
        last = self.final_observation
        follows = np.append(np.diff(self["step"]) == 1, last is not None)
        tail = np.zeros((1, *self["observation"].shape[1:]), np.float32) if last is None else last[None]
        rows = {**self.columns, "next_observation": np.concatenate([self["observation"][1:], tail])[:length]}
        reward = self["reward"].copy()
        if length and self.label is not None and self.label.reward is not None and follows[-1]:
            reward[-1] += self.label.reward
        last_known = np.append(~follows[1:], True)[:length]
        rows["next_reward"], rows["next_terminated"] = reward, self["terminated"]
        rows["next_truncated"] = (self["truncated"] | last_known) & ~self["terminated"]
        rows["done"] = rows["next_truncated"] | rows["next_terminated"]
        rows["episode"] = np.full(length, self.number)
        return {name: values[follows] for name, values in rows.items()}


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
    with open_regular(path) as file, _no_garbage_collection():
        scanner = Scanner(file)
        collector = _Collector()
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
        raise LogError(f"{path} is damaged from byte {integrity.valid} of {integrity.size}: {integrity.reason}")
    if collector.header is None:
        raise LogError(f"{path} ends before it says whose log it is: {integrity.reason or 'no session'}")
    labels, unreadable = read_labels(path, collector.header.session)
    return collector.log(integrity, labels, unreadable)


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


def parse_header(metadata: Metadata) -> Header:
    """The session metadata of a log.

    Raises:
        LogError: when it is not what the writer wrote, or of a later schema.

    """
    texts = dict(metadata.metadata)
    found = texts.pop("sha256", None)
    if metadata.name != SESSION or found != digest(texts):
        raise LogError("the session's metadata do not match their digest")
    try:
        if int(texts["schema"]) > SCHEMA:
            raise LogError(f"the log has schema {texts['schema']}, this gipo reads up to {SCHEMA}; upgrade gipo")
        manifests = {key.removeprefix("manifest."): text for key, text in texts.items() if key.startswith("manifest.")}
        robot, settings = json.loads(texts["robot"]), json.loads(texts["settings"])
        return Header(texts["session"], texts["created"], robot, settings, manifests)
    except (KeyError, ValueError, RecursionError) as error:
        raise error if isinstance(error, LogError) else LogError(f"the session's metadata miss {error}") from error


class _Collector:
    """Sorts rows into episodes, as blocks of arrays: one block a chunk, so that parsed JSON never piles up."""

    def __init__(self) -> None:
        self.header: Header | None = None
        self._blocks: dict[int, list[dict[str, np.ndarray]]] = {}
        self._gates: dict[int, dict[int, list[str]]] = {}
        self._lengths: dict[int, int] = {}
        self._shadows: dict[int, list[dict[str, Any]]] = {}
        self._events: list[dict[str, Any]] = []

    def metadata(self, metadata: Metadata) -> None:
        if self.header is None:
            self.header = parse_header(metadata)

    def messages(self, messages: list[Message]) -> None:
        steps = [data for topic, data in messages if topic == "step"]
        try:
            if steps:
                self._steps(orjson.loads(b"[" + b",".join(steps) + b"]"))
            for topic, data in messages:
                if topic == "event":
                    self._events.append(_event(orjson.loads(data)))
                elif topic == "shadow":
                    row = _shadow(orjson.loads(data))
                    self._shadows.setdefault(row["episode"], []).append(row)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise LogError(f"a row that no log of gipo-robot holds: {type(error).__name__} {error}") from error

    def _steps(self, rows: list[dict[str, Any]]) -> None:
        numbers = [row["episode"] for row in rows]
        start = 0
        for stop in range(1, len(rows) + 1):
            if stop == len(rows) or numbers[stop] != numbers[start]:
                self._block(int(numbers[start]), rows[start:stop])
                start = stop

    def _block(self, episode: int, rows: list[dict[str, Any]]) -> None:
        length = self._lengths.get(episode, 0)
        self._blocks.setdefault(episode, []).append(_columns(rows))
        for index, row in enumerate(rows):
            if row["gate"]:
                self._gates.setdefault(episode, {})[length + index] = row["gate"]
        self._lengths[episode] = length + len(rows)

    def log(self, integrity: Integrity, labels: dict[int, Label], unreadable: int) -> Log:
        assert self.header is not None
        of_episode: dict[int, list[dict[str, Any]]] = {}
        for event in self._events:
            of_episode.setdefault(event["episode"], []).append(event)
        episodes = []
        for number, blocks in sorted(self._blocks.items()):
            try:
                columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
            except (KeyError, ValueError) as error:
                raise LogError(f"episode {number} changes its shape half-way: {error}") from error
            episodes.append(
                Episode(
                    number,
                    columns,
                    self._gates.get(number, {}),
                    of_episode.get(number, []),
                    self._shadows.get(number, []),
                    labels.get(number),
                )
            )
        return Log(self.header, episodes, self._events, integrity, unreadable)


def _columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """[T] and [T, n] arrays of rows; ragged or non-numeric rows raise ValueError or TypeError."""
    count = len(rows)
    columns: dict[str, np.ndarray] = {
        name: np.array([row[name] for row in rows], kind) for name, kind in _SCALARS.items()
    }
    for name, kind in _VECTORS.items():
        columns[name] = _matrix([row[name] for row in rows], count, kind)
    latents = [row["latent"] for row in rows]
    columns["latent"] = _matrix(latents, count, np.int64 if type(latents[0][0]) is int else np.float32)
    return columns


def _matrix(values: list[list[float]], count: int, kind: type) -> np.ndarray:
    width = len(values[0])
    if set(map(len, values)) != {width}:
        raise ValueError("rows of unequal length")
    return np.fromiter(chain.from_iterable(values), kind, width * count).reshape(count, width)


def _event(raw: dict[str, Any]) -> dict[str, Any]:
    if type(raw["episode"]) is not int or not isinstance(raw["kind"], str) or not isinstance(raw["data"], dict):
        raise TypeError("an event of unknown form")
    return raw


def _shadow(raw: dict[str, Any]) -> dict[str, Any]:
    np.array([raw["log_prob"], raw["deterministic_action"]], np.float64)
    if not all(type(raw[name]) is int for name in ("episode", "step", "policy_version")):
        raise TypeError("a shadow of unknown form")
    return raw


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Parsing makes millions of short-lived objects and no cycles; collecting in between triples the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


__all__ = ["TIMES", "Episode", "Header", "Log", "parse_header", "read_log", "verify"]
