"""Segments in memory that two processes share: written in one, read in the other, never copied into a message."""

import math
import mmap
import os
import tempfile
from typing import NamedTuple

import torch
from tensordict import TensorDict

ALIGNMENT = 64  # bytes: a cache line


class Column(NamedTuple):
    """Where one entry of a segment lies.

    Args:
        key: of the TensorDict, nested.
        dtype: of its elements.
        shape: of the entry, with the segment's rows.
        offset: bytes from the beginning of a segment.
    """

    key: tuple[str, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int


class SegmentLayout(NamedTuple):
    """How segments lie in memory, one behind another.

    Args:
        columns: entries of a segment.
        rows: transitions of a segment.
        size: bytes of a segment.
        places: segments that there is room for.
    """

    columns: tuple[Column, ...]
    rows: int
    size: int
    places: int


class SharedSegments:
    """Segments in memory that has no name: it is gone with the last process that has it.

    Args:
        layout: of the memory.
        descriptor: of the memory, from the process that made it; None makes it.
    """

    def __init__(self, layout: SegmentLayout, descriptor: int | None = None):
        size = layout.places * layout.size
        self.descriptor = _unnamed(size) if descriptor is None else descriptor
        memory = mmap.mmap(self.descriptor, size)
        self._segments = [_segment_at(index * layout.size, memory, layout) for index in range(layout.places)]

    def __getitem__(self, index: int) -> TensorDict:
        """Segment `index`, in the shared memory itself."""
        return self._segments[index]

    def close(self) -> None:
        """Give the handle of the memory back; the segments stay as long as somebody has them."""
        os.close(self.descriptor)


def layout_of(segment: TensorDict, places: int) -> SegmentLayout:
    """Room for `places` segments like this one [M]."""
    columns, offset = [], 0
    for key, value in segment.items(include_nested=True, leaves_only=True):
        columns.append(Column(key if isinstance(key, tuple) else (key,), value.dtype, tuple(value.shape), offset))
        offset += -(-value.nbytes // ALIGNMENT) * ALIGNMENT
    return SegmentLayout(tuple(columns), len(segment), offset, places)


def _segment_at(start: int, memory: mmap.mmap, layout: SegmentLayout) -> TensorDict:
    """The segment that begins at byte `start` of a memory."""
    segment = TensorDict(batch_size=[layout.rows])
    for key, dtype, shape, offset in layout.columns:
        values = torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=start + offset)
        segment[key] = values.view(shape)
    return segment


def _unnamed(size: int) -> int:
    """The descriptor of so many bytes of memory; where the system has no such thing, of a file without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("segments")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
