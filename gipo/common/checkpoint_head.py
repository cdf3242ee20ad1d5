"""What a checkpoint says of itself, read without torch: on a robot's computer as where it was trained."""

import os
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from gipo.common import plain_pickle
from gipo.common.errors import UserError
from gipo.common.plain_pickle import Made
from gipo.common.reading import stand_in_at

CHECKPOINT_FORMAT = 1  # raised when older code cannot read a checkpoint any more
ENTRY = "gipo"  # of the checkpoint, in which the head is kept as plain data
MAX_PICKLE = 16 << 20  # bytes; that of a policy of ten thousand tensors is a quarter of it
TYPES = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}


@dataclass(frozen=True)
class LearnedLog:
    """A log, or a dataset, that the policy of a checkpoint learned from.

    Args:
        session: of the log; None where there are none or several.
        sha256: of the file, hex.
        policy_ids: artifacts that acted in it.
        steps: transitions in which one of them chose the action.
        sessions: of the logs that a dataset was exported from, where they are several.
    """

    session: str | None
    sha256: str | None
    policy_ids: list[str]
    steps: int | None
    sessions: list[str] = field(default_factory=list)


class TrainedOn(TypedDict, total=False):
    """The entries of a head that the data module writes, as `CheckpointHead` describes them."""

    task: str
    simulator: str
    frames: int
    interface: dict[str, Any] | None
    parent: str | None
    logs: list[dict[str, Any]]


@dataclass(frozen=True)
class CheckpointHead:
    """What a checkpoint says of itself: this, and nothing else, is in its entry `gipo`.

    Args:
        policy: description from which `gipo.policies.build` makes the policy anew. The learner writes it, and `format`.
        format: CHECKPOINT_FORMAT of the gipo that wrote it.
        init_from: id of the checkpoint that the run started from; written by the learner.
        precision: of the updates, as `trainer.precision`; by the learner. Older checkpoints do not say.
        id: SHA-256 of the policy, hex, by which what is made from it names it; written with the file.
        frozen: parts of the network that did not learn; by the learner. None in older checkpoints, which do not say.
        config_hash: SHA-256 of the configuration of the run, hex; written by the callback that keeps that.
        task: what it was trained on; by the data module, as all that follows.
        simulator: what simulated it, `python` or `envpool`; none before there was a choice.
        frames: environment steps that were collected, or steps of the logs.
        interface: names and units of observation and action and `control_rate_hz`, where the task has true ones.
        parent: id of the artifact that acted in most steps of the logs.
        logs: that it learned from.
        logs_before: that the policies which it was started from learned from; by the learner.
        version: of the policy, as its weights have it; where they were looked at.
    """

    policy: dict[str, Any]
    format: int = CHECKPOINT_FORMAT
    init_from: str | None = None
    precision: str | None = None
    id: str | None = None
    frozen: tuple[str, ...] | None = None
    config_hash: str | None = None
    task: str | None = None
    simulator: str | None = None
    frames: int | None = None
    interface: dict[str, Any] | None = None
    parent: str | None = None
    logs: tuple[LearnedLog, ...] = ()
    logs_before: tuple[LearnedLog, ...] = ()
    version: int | None = None

    @classmethod
    def of(
        cls, checkpoint: Any, path: str | os.PathLike[str] = "the checkpoint", version: int | None = None
    ) -> "CheckpointHead":
        """The head of a checkpoint, if gipo wrote it and this gipo reads it.

        Args:
            checkpoint: as it was loaded.
            path: for messages.
            version: of its policy.

        Raises:
            UserError: when not, or when an entry is missing or of another type.
        """
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(ENTRY), dict):
            raise UserError(f"{path} is not a gipo checkpoint: it has no {ENTRY!r} entry")
        entries = checkpoint[ENTRY]
        _refuse_other_format(entries.get("format"), path)
        if entries.get("policy") is None:
            raise UserError(f"{path} has no 'policy': it is damaged or was not written by gipo fit")
        texts = ("init_from", "precision", "id", "config_hash", "task", "simulator", "parent")
        return cls(
            policy=_typed(entries, "policy", dict, path),
            **{name: _typed(entries, name, str, path) for name in texts},
            frozen=None if (frozen := _typed(entries, "frozen", list, path)) is None else tuple(map(str, frozen)),
            frames=_typed(entries, "frames", int, path),
            interface=_typed(entries, "interface", dict, path),
            logs=_learned_logs(entries, "logs", path),
            logs_before=_learned_logs(entries, "logs_before", path),
            version=version,
        )


def note(checkpoint: dict[str, Any], **entries: Any) -> None:
    """Add entries to the head of a checkpoint that is being put together.

    Raises:
        UserError: when a head has no such entry.
    """
    known = [field.name for field in fields(CheckpointHead) if field.name != "version"]
    unknown = sorted(entries.keys() - set(known))
    if unknown:
        raise UserError(f"a checkpoint does not say {', '.join(unknown)} of itself; it says {', '.join(known)}")
    checkpoint[ENTRY] = checkpoint.get(ENTRY, {}) | entries


def read_head(path: str | os.PathLike[str]) -> CheckpointHead:
    """The head of a checkpoint file, with the policy's version; no other tensor is read for it.

    Raises:
        UserError: when there is no such file, it is truncated or damaged, or no gipo checkpoint.
    """
    check_is_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            folder, data = pickle_of(archive)
            checkpoint = plain_pickle.load(data)
            weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
            tensor = weights.get("policy.version") if isinstance(weights, dict) else None
            version = None if tensor is None else _whole_number(archive, folder, tensor)
    except Exception as error:  # many kinds for damaged files
        raise unreadable(path, error) from error
    return CheckpointHead.of(checkpoint, path, version)


def check_is_file(path: str | os.PathLike[str]) -> None:
    """Refuse what cannot be a checkpoint, and name the one that is meant where it is a run's folder.

    Raises:
        UserError: when there is no such file.
    """
    if os.fspath(path) and Path(path).is_dir():
        inside = [each for each in (Path(path, "checkpoints", "last.ckpt"), Path(path, "last.ckpt")) if each.is_file()]
        raise UserError(f"{path} is a folder; name a checkpoint{f', such as {inside[0]}' if inside else ' file'}")
    if not Path(path).is_file():
        raise UserError(f"no checkpoint at {os.fspath(path) or 'an empty path'}")


def unreadable(path: str | os.PathLike[str], error: Exception) -> UserError:
    """The error about a file that cannot be read as a checkpoint, or not at all."""
    if isinstance(error, OSError) and error.filename is not None:  # opening failed; nothing of it was seen
        return UserError(f"cannot read {path}: {error.strerror}")
    said = str(error).strip().splitlines() or [type(error).__name__]
    reason = stand_in_at(path) or said[0]
    return UserError(f"{path} is truncated, damaged or not a checkpoint of plain tensors: {reason}")


def _refuse_other_format(found: Any, path: str | os.PathLike[str]) -> None:
    if type(found) is not int or found != CHECKPOINT_FORMAT:
        shown = f"{found!r:.20}" if isinstance(found, int | str | None) else f"a {type(found).__name__}"
        raise UserError(
            f"{path} has checkpoint format {shown}, this gipo reads {CHECKPOINT_FORMAT}; use the gipo that wrote it"
        )


def _typed(entries: dict[str, Any], name: str, kind: type, path: str | os.PathLike[str]) -> Any:
    """An entry that may be absent, of the type it must have."""
    found = entries.get(name)
    if found is not None and not isinstance(found, kind):
        raise UserError(f"{path}: its entry {name!r} is {type(found).__name__}, it must be {TYPES[kind]}")
    return found


def _learned_logs(entries: dict[str, Any], name: str, path: str | os.PathLike[str]) -> tuple[LearnedLog, ...]:
    return tuple(_learned(each, name, path) for each in _typed(entries, name, list, path) or ())


def _learned(entry: Any, name: str, path: str | os.PathLike[str]) -> LearnedLog:
    if not isinstance(entry, dict):
        raise UserError(f"{path}: its entry {name!r} must be a list of objects")
    session, sha256 = (_typed(entry, each, str, path) for each in ("session", "sha256"))
    if not (session or sha256):
        raise UserError(f"{path}: its entry {name!r} lists one without a session or sha256")
    policies, sessions = (_texts(entry, each, path) for each in ("policy_ids", "sessions"))
    return LearnedLog(session, sha256, policies, _typed(entry, "steps", int, path), sessions)


def _texts(entries: dict[str, Any], name: str, path: str | os.PathLike[str]) -> list[str]:
    return [_typed({name: each}, name, str, path) for each in _typed(entries, name, list, path) or ()]


def pickle_of(archive: zipfile.ZipFile) -> tuple[str, bytes]:
    """The folder of the archive that holds everything, and its pickle."""
    names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise ValueError(f"the archive holds {len(names)} pickles, a checkpoint one")
    entry = archive.getinfo(names[0])
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > MAX_PICKLE:
        raise ValueError(f"its pickle is compressed, or larger than {MAX_PICKLE} bytes")
    return names[0].partition("/")[0], archive.read(entry)


def _whole_number(archive: zipfile.ZipFile, folder: str, tensor: Any) -> int:
    """The value of a tensor of one int64."""
    if not isinstance(tensor, Made) or tensor.function != "torch._utils _rebuild_tensor_v2":
        raise ValueError("policy.version is no tensor")
    storage, offset, shape = tensor.arguments[:3]
    _, kind, name, *_ = storage.arguments
    sound = type(name) is str and type(offset) is int and offset >= 0
    if kind.name != "torch LongStorage" or shape not in ((), (1,)) or not sound:
        raise ValueError("policy.version is no whole number")
    order = f"{folder}/byteorder"
    big = order in archive.namelist() and archive.read(order) == b"big"
    with archive.open(f"{folder}/data/{name}") as file:
        file.seek(8 * offset)
        data = file.read(8)
    if len(data) != 8:
        raise ValueError("policy.version lies behind the end of its data")
    return int.from_bytes(data, "big" if big else "little", signed=True)
