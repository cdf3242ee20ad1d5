"""How a checkpoint is written: one file that appears whole or not at all."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from gipo.checkpoints import checkpoint_id, load_checkpoint
from gipo.common import plain_pickle
from gipo.common.checkpoint_head import note, pickle_of
from gipo.common.files import whole_file
from gipo.common.terminal import say_once


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs, renames: a kill at any moment leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path` atomically, with the id by which what is made from it names it."""
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO takes no storage_options")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        named = dict(checkpoint)
        note(named, id=checkpoint_id(checkpoint))
        if "callbacks" in named:
            named["callbacks"] = {name: state for name, state in named["callbacks"].items() if _is_plain(name, state)}
        with whole_file(target) as partial, open(partial, "wb") as file:
            torch.save(named, file)

    def load_checkpoint(self, path: Any, map_location: Any | None = "cpu", weights_only: bool | None = None) -> Any:
        """Read `path` as plain data, into main memory unless told otherwise; `weights_only` is always on."""
        return moved(load_checkpoint(path, map_location), Path(path))


def moved(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """`checkpoint` of a run that was moved or renamed: what its callbacks know of files is where they are now.

    Lightning starts to look for the best policy anew where the folder of its files is another one.
    """
    callbacks = checkpoint.get("callbacks") or {}
    was = next((state["dirpath"] for name, state in callbacks.items() if name.startswith("LastCheckpoint")), None)
    now = os.path.abspath(path.parent)
    if was is None or was == now:
        return checkpoint
    return checkpoint | {"callbacks": {name: _with_folder(state, was, now) for name, state in callbacks.items()}}


def _with_folder(value: Any, was: str, now: str) -> Any:
    """Paths that lie in the folder `was`, as they are in `now`; all else as it is."""
    if isinstance(value, str):
        return now + value.removeprefix(was) if value == was or value.startswith(was + os.sep) else value
    if isinstance(value, dict):
        return {_with_folder(key, was, now): _with_folder(each, was, now) for key, each in value.items()}
    return value


def _is_plain(name: str, state: Any) -> bool:
    """Whether the state of a callback, which may be a user's, can be read again; told where it cannot."""
    try:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
        plain_pickle.load(pickle_of(zipfile.ZipFile(buffer))[1])  # which the head of a checkpoint is read by
    except Exception as error:  # whatever its objects make of being pickled
        say_once(
            f"the state of {name.partition('{')[0]} is left out of checkpoints, as it is no plain data: "
            f"{str(error).strip().partition(chr(10))[0]}"
        )
        return False
    return True
