"""The store: frames in memory-mapped files, and what they say of themselves."""

import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict

from datamodules.ingest.columns import Layout
from datamodules.ingest.metadata import Facts
from datamodules.ingest.pictures import Album
from gipo.common.errors import UserError
from gipo.common.transition import STORED

FRAMES, FACTS, PICTURES = "frames", "store.json", "pictures"


@dataclass(frozen=True)
class Store:
    """Transitions of many sources, ready to learn from.

    Args:
        path: of the folder.
        frames: [M] memory-mapped, episodes contiguous and in time order; not to be written to. Keys are those that
            `gipo.common.transition.FIELDS` gives for the store; `policy` is an index into `facts.policies`.
        facts: what is in it and where it came from.
        album: the images that `picture` and `next/picture` of a frame are the numbers of; None where there are none.
        left_out: files of the folders that were named and are no logs of ours, or of a newer schema, in words.
    """

    path: Path
    frames: TensorDict
    facts: Facts
    album: Album | None = None
    left_out: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether the store holds which steps a policy that sees decided on at once, as `chunk_step`."""
        return self.facts.interface.chunk is not None or self.facts.has_log_prob


def load_store(path: Path) -> Store:
    """Open a store, which takes no longer for a large one.

    Raises:
        UserError: when it is not whole.
    """
    try:
        facts = Facts.from_json((path / FACTS).read_text(encoding="utf-8"))
        _refuse_cut(path / FRAMES)
        frames = TensorDict.load_memmap(path / FRAMES, allow_pickle=False)
        if len(frames) != facts.steps or (facts.has_log_prob and "log_prob" not in frames.keys()):
            raise ValueError(f"{len(frames)} frames of {facts.steps}")
        folders = sorted((path / PICTURES).glob("*"))
        album = Album(folders) if folders else None
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"the store {path} is damaged ({type(error).__name__} {error}); delete it") from error
    return Store(path, frames, facts, album)


def _refuse_cut(folder: Path) -> None:
    """Refuse a file that is not as long as its numbers: whoever may write to it would have it filled with zeros.

    Raises:
        OSError: when one is missing.
        ValueError: when one is of another length.
    """
    for name, said in json.loads((folder / "meta.json").read_text(encoding="utf-8")).items():
        if not isinstance(said, dict):
            continue
        if "shape" not in said:
            _refuse_cut(folder / name)
            continue
        size = math.prod(said["shape"]) * getattr(torch, said["dtype"].removeprefix("torch.")).itemsize
        there = (folder / f"{name}.memmap").stat().st_size if size else 0
        if there != size:
            raise ValueError(f"{name}.memmap has {there:,} bytes of {size:,}")


def allocate(folder: Path, layout: Layout, steps: int) -> TensorDict:
    """Frames [steps] on disk, in the layout of the columns of one source, to be filled.

    Raises:
        OSError: when there is no room for them.
    """
    example = TensorDict({}, [1])
    for field in STORED:
        if field.whole_episode:
            example[field.path] = torch.from_numpy(np.zeros(1, field.dtype))
        elif field.name in layout:
            kind, shape = layout[field.name]
            example[field.path] = torch.from_numpy(np.zeros((1, *shape), np.dtype(kind)))
    try:
        frames = example.expand(steps).memmap_like(str(folder))
    except RuntimeError as error:  # what torch raises where the system refuses a file, with the system's number
        if (number := re.search(r"\((\d+)\)$", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error
    for file in folder.rglob("*.memmap"):
        reserve(file)
    return frames


def reserve(file: Path) -> None:
    """Take the space of a file now: written through a map, a full disk ends the process without a word.

    Raises:
        OSError: when there is no room for it.
    """
    size = file.stat().st_size
    if size and hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as found:
            os.posix_fallocate(found.fileno(), 0, size)
