"""What a checkpoint says of itself, read without torch: on a robot's computer as where it was trained."""

import os
import zipfile
from pathlib import Path
from typing import Any

from gipo.common import plain_pickle
from gipo.common.errors import UserError
from gipo.common.plain_pickle import Made
from gipo.common.reading import stand_in_at

CHECKPOINT_FORMAT = 1  # raised when older code cannot read a checkpoint any more
MAX_PICKLE = 16 << 20  # bytes; that of a policy of ten thousand tensors is a quarter of it


def read_head(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of itself, its `gipo` entry, and the policy's `version`; no other tensor is read for it.

    Raises:
        UserError: when there is no such file, it is truncated or damaged, or no gipo checkpoint.
    """
    check_is_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            folder, data = _pickle(archive)
            checkpoint = plain_pickle.load(data)
            weights = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
            tensor = weights.get("policy.version") if isinstance(weights, dict) else None
            version = None if tensor is None else _whole_number(archive, folder, tensor)
    except Exception as error:  # many kinds for damaged files
        raise unreadable(path, error) from error
    return {**of_gipo(path, checkpoint)["gipo"], "version": version}


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
    """The error about a file that cannot be read as a checkpoint."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    reason = stand_in_at(path) or said[0]
    return UserError(f"{path} is truncated, damaged or not a checkpoint of plain tensors: {reason}")


def of_gipo(path: str | os.PathLike[str], checkpoint: Any) -> dict[str, Any]:
    """The checkpoint, if gipo wrote it and this gipo reads it.

    Raises:
        UserError: when not.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("gipo"), dict):
        raise UserError(f"{path} is not a gipo checkpoint: it has no 'gipo' entry")
    found = checkpoint["gipo"].get("format")
    if type(found) is not int or found != CHECKPOINT_FORMAT:
        shown = f"{found!r:.20}" if isinstance(found, int | str | None) else f"a {type(found).__name__}"
        raise UserError(
            f"{path} has checkpoint format {shown}, this gipo reads {CHECKPOINT_FORMAT}; use the gipo that wrote it"
        )
    return checkpoint


def _pickle(archive: zipfile.ZipFile) -> tuple[str, bytes]:
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
