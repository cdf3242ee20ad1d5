"""Labels given after the fact: lines appended beside the log, which itself is never touched.

A sealed MCAP file ends with its footer, so nothing can be appended to it without rewriting; the labels of
`NAME.mcap` stand in `NAME.labels.jsonl`, one JSON object a line, each with a CRC of its own. The labels of an episode
are merged field by field: of each field the last one that says something counts.
"""

import os
import time
import zlib
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from io import FileIO
from pathlib import Path

import orjson

from gipo.common.errors import UserError
from gipo.common.files import sync

MAX_BYTES = 64 << 20
MAX_REWARD = 1e30
SHOWN = 5  # numbers of lines in a message


@dataclass(frozen=True)
class Label:
    """What a person says of an episode after the fact.

    Args:
        session: identity of the log it belongs to.
        episode: number of the episode.
        success: whether the task was done; None when only a reward is given.
        reward: added to the reward of the last step that is kept of the episode, in place of those that a person gave
            while it ran; None for none.
        wall_ns: when it was given.
        discard: whether nothing is to be learned from the episode; None when that is left open.
    """

    session: str
    episode: int
    success: bool | None
    reward: float | None
    wall_ns: int
    discard: bool | None = None

    def merged(self, later: "Label") -> "Label":
        """What two labels of an episode say together; `later` wins where both say something."""
        fields = ("success", "reward", "discard")
        return replace(later, **{name: getattr(self, name) for name in fields if getattr(later, name) is None})


def labels_path(log: str | os.PathLike[str]) -> Path:
    """Where the labels of a log stand: beside it; beside the file itself where `log` is a link without labels."""
    named = Path(log)
    beside = named.with_suffix(".labels.jsonl")
    return named.resolve().with_suffix(".labels.jsonl") if named.is_symlink() and not beside.exists() else beside


def append_label(
    log: str | os.PathLike[str],
    session: str,
    episode: int,
    success: bool | None,
    reward: float | None,
    discard: bool | None = None,
) -> Label:
    """Append one label and sync it.

    Raises:
        UserError: when it says nothing, its reward is not finite, or the file cannot be written.
    """
    if success is None and reward is None and discard is None:
        raise UserError("a label needs --success, --failure, --reward, --discard or --keep")
    if not is_reward(reward):
        raise UserError(f"--reward is {reward}; it must be a number up to {MAX_REWARD:g}")
    label = Label(session, episode, success, reward, time.time_ns(), discard)
    path = labels_path(log)
    try:
        with open(path, "ab+", buffering=0) as file:
            file.seek(max(0, file.tell() - 1))
            # A line that a kill cut short stays as it is; ours begins behind it.
            _write_whole(file, (b"" if file.read()[-1:] in (b"", b"\n") else b"\n") + _line(label))
        sync(path)
        sync(path.parent)  # where it is new
    except OSError as error:
        with suppress(OSError):
            if path.stat().st_size == 0:  # made for this label, of which nothing could be written
                path.unlink()
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return label


def read_labels(log: str | os.PathLike[str], session: str) -> tuple[dict[int, Label], list[int]]:
    """What the labels of every labelled episode say together, and the numbers of the lines that are not readable.

    Raises:
        UserError: when they belong to another log, or are no labels.
    """
    path = labels_path(log)
    if not path.is_file():
        return {}, []
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES} bytes; it is no file of labels")
    found: dict[int, Label] = {}
    unreadable: list[int] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:  # two that write at once may leave an empty one
            continue
        label = _parse(line)
        if label is None:
            unreadable.append(number)
        elif label.session != session:
            raise UserError(f"{path} belongs to another log (session {label.session[:8]}…, this is {session[:8]}…)")
        else:
            known = found.get(label.episode)
            found[label.episode] = label if known is None else known.merged(label)
    return found, unreadable


def unused_labels(labels: Mapping[int, Label], unreadable: list[int], episodes: Container[int]) -> str:
    """Which labels teach nothing, in words; empty when all do.

    Args:
        labels: by their episodes.
        unreadable: numbers of lines, from 1.
        episodes: that are in the log.
    """
    absent = sorted(number for number in labels if number not in episodes)
    parts = [f"{_lines(unreadable)} not readable"] if unreadable else []
    parts += [f"episode {number} is labelled and not in the log" for number in absent]
    return ", ".join(parts)


def _lines(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"line {numbers[0]} is"
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return f"{len(numbers)} lines ({shown}{', …' if len(numbers) > SHOWN else ''}) are"


def is_reward(value: object) -> bool:
    """Whether a value is None, or a number that a float32 holds with room for what it is added to."""
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_REWARD
    )


def _write_whole(file: FileIO, line: bytes) -> None:
    """Append a line, or nothing of it where the disk has room for a part alone."""
    written = 0
    try:
        while written < len(line):
            written += file.write(line[written:])
    except OSError:
        if written:
            file.truncate(file.tell() - written)
        raise


def _line(label: Label) -> bytes:
    said = asdict(label)
    if label.discard is None:  # as labels were before there was such a field
        del said["discard"]
    body = orjson.dumps(said)
    return b'{"crc":%d,"label":%s}\n' % (zlib.crc32(body), body)


def _parse(line: bytes) -> Label | None:
    try:
        raw = orjson.loads(line)
        label = Label(**raw["label"])
        judged = isinstance(label.success, bool | None) and isinstance(label.discard, bool | None)
        placed = isinstance(label.session, str) and type(label.episode) is int
        sound = placed and judged and is_reward(label.reward)
        return label if sound and _line(label) == line + b"\n" else None
    except (ValueError, TypeError, KeyError):
        return None
