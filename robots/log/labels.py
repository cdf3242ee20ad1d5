"""Labels given after the fact: lines appended beside the log, which itself is never touched.

A sealed MCAP file ends with its footer, so nothing can be appended to it without rewriting; the labels of
`NAME.mcap` stand in `NAME.labels.jsonl`, one JSON object a line, each with a CRC of its own. The last label of an
episode counts.
"""

import os
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from robots.errors import LogError

MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Label:
    """What a person says of an episode.

    Args:
        session: identity of the log it belongs to.
        episode: number of the episode.
        success: whether the task was done; None when only a reward is given.
        reward: added to the reward of the episode's last step; None for none.
        wall_ns: when it was given.
    """

    session: str
    episode: int
    success: bool | None
    reward: float | None
    wall_ns: int


def labels_path(log: str | os.PathLike[str]) -> Path:
    """Where the labels of a log stand."""
    return Path(log).with_suffix(".labels.jsonl")


def append_label(
    log: str | os.PathLike[str], session: str, episode: int, success: bool | None, reward: float | None
) -> Label:
    """Append one label and sync it.

    Raises:
        LogError: when it says nothing, its reward is not finite, or the file cannot be written.
    """
    if success is None and reward is None:
        raise LogError("a label needs --success, --failure or --reward")
    if reward is not None and not abs(reward) < 1e30:
        raise LogError(f"--reward is {reward}; it must be a finite number")
    label = Label(session, episode, success, reward, time.time_ns())
    path = labels_path(log)
    try:
        with open(path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            else:
                torn = False
            # A line that a kill cut short stays as it is; ours begins behind it.
            file.write((b"\n" if torn else b"") + _line(label))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LogError(f"cannot write {path}: {error.strerror or error}") from error
    return label


def read_labels(log: str | os.PathLike[str], session: str) -> tuple[dict[int, Label], int]:
    """The label that counts of every labelled episode, and how many lines are not readable."""
    path = labels_path(log)
    if not path.is_file():
        return {}, 0
    if path.stat().st_size > MAX_BYTES:
        raise LogError(f"{path} has more than {MAX_BYTES} bytes; it is no file of labels")
    found: dict[int, Label] = {}
    unreadable = 0
    for line in path.read_bytes().splitlines():
        label = _parse(line)
        if label is None:
            unreadable += 1
        elif label.session != session:
            raise LogError(f"{path} belongs to another log (session {label.session[:8]}…, this is {session[:8]}…)")
        else:
            found[label.episode] = label
    return found, unreadable


def _line(label: Label) -> bytes:
    body = orjson.dumps(asdict(label))
    return b'{"crc":%d,"label":%s}\n' % (zlib.crc32(body), body)


def _parse(line: bytes) -> Label | None:
    try:
        raw = orjson.loads(line)
        label = Label(**raw["label"])
        return label if _line(label) == line + b"\n" and type(label.episode) is int else None
    except (ValueError, TypeError, KeyError):
        return None
