"""The store: frames in memory-mapped files, and what they say of themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict

from datamodules.ingest.metadata import Facts
from gipo.common.errors import UserError

FRAMES, FACTS = "frames", "store.json"
ROWS = 16_384  # copied at once


@dataclass(frozen=True)
class Store:
    """Transitions of many sources, ready to learn from.

    Args:
        path: of the folder.
        frames: [M] memory-mapped, episodes contiguous and in time order; not to be written to. Keys as in the data
            contract, and `policy` (index into `facts.policies`, −1 where unknown) and `success` (1, 0, −1 nobody said).
        facts: what is in it and where it came from.
        left_out: files of the folders that were named and are no logs of ours, or of a newer schema, in words.
    """

    path: Path
    frames: TensorDict
    facts: Facts
    left_out: tuple[str, ...] = ()


def load_store(path: Path) -> Store:
    """Open a store, which takes no longer for a large one.

    Raises:
        UserError: when it is not whole.
    """
    try:
        facts = Facts.from_json((path / FACTS).read_text(encoding="utf-8"))
        frames = TensorDict.load_memmap(path / FRAMES, allow_pickle=False)
        if len(frames) != facts.steps or (facts.has_log_prob and "log_prob" not in frames.keys()):
            raise ValueError(f"{len(frames)} frames of {facts.steps}")
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"the store {path} is damaged ({type(error).__name__} {error}); delete it") from error
    return Store(path, frames, facts)


def allocate(folder: Path, columns: dict[str, np.ndarray], steps: int) -> TensorDict:
    """Frames [steps] on disk, in the types of the columns of one source, to be filled."""
    rows = {name: torch.from_numpy(np.zeros((1, *values.shape[1:]), values.dtype)) for name, values in columns.items()}
    following = {name: rows.pop(theirs) for name, theirs in NEXT.items()} | {"done": torch.zeros(1, dtype=torch.bool)}
    whole = {name: torch.zeros(1, dtype=torch.int64) for name in ("policy", "episode")}
    example = TensorDict(
        {**rows, **whole, "success": torch.zeros(1, dtype=torch.int8), "next": TensorDict(following, [1])}, [1]
    )
    return example.expand(steps).memmap_like(str(folder))


# `next` of a frame, by column.
NEXT = {"observation": "next_observation", "reward": "reward", "terminated": "terminated", "truncated": "truncated"}


def fill(frames: TensorDict, columns: dict[str, np.ndarray], rows: slice, start: int) -> None:
    """Copy rows of columns to the frames from `start` on, some at a time."""
    views = {name: frames[name].numpy() for name in frames.keys() if name in columns and name not in NEXT.values()}
    following = {name: frames["next", name].numpy() for name in [*NEXT, "done"]}
    for source, target in _steps(rows, start):
        for name, view in views.items():
            view[target] = columns[name][source]
        for name, theirs in NEXT.items():
            following[name][target] = columns[theirs][source]
        following["done"][target] = columns["terminated"][source] | columns["truncated"][source]


def _steps(rows: slice, start: int) -> Iterator[tuple[slice, slice]]:
    for first in range(rows.start, rows.stop, ROWS):
        last = min(first + ROWS, rows.stop)
        yield slice(first, last), slice(start + first - rows.start, start + last - rows.start)
