"""Columns on their way into a store: one raw file a column, appended to episode by episode."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gipo.common.errors import UserError

Layout = dict[str, tuple[str, list[int]]]  # column → dtype and shape of a row


class BlockWriter:
    """Appends rows to files of an empty folder; use as a context manager."""

    def __init__(self, folder: Path):
        self.layout: Layout = {}
        self.rows = 0
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> "BlockWriter":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add the rows of columns [T, …], which are the same columns every time.

        Raises:
            UserError: when they are not.
        """
        found: Layout = {name: (values.dtype.str, list(values.shape[1:])) for name, values in columns.items()}
        if not self.layout:
            self.layout = found
            self._files = {name: open(self._folder / name, "wb") for name in found}  # noqa: SIM115 (closed at exit)
        if found != self.layout:
            name = next(name for name in sorted({*found, *self.layout}) if found.get(name) != self.layout.get(name))
            raise UserError(f"{name} is of another form than in the episodes before it")
        for name, values in columns.items():
            self._files[name].write(np.ascontiguousarray(values).data)
        self.rows += len(next(iter(columns.values())))


class Columns(Mapping[str, np.ndarray]):
    """Columns [rows, …] in the files of a folder: each is mapped when it is asked for, read-only, and while it is held.

    A map costs a descriptor, of which a process has few: not all columns of all sources can be mapped at once.

    Args:
        folder: of the files.
        layout: of the columns.
        rows: of each.
        zeros: which of them have no file and are zero throughout.
    """

    def __init__(self, folder: Path, layout: Layout, rows: int, zeros: frozenset[str] = frozenset()):
        self.layout, self.rows = layout, rows
        self._folder, self._zeros = folder, zeros

    def __getitem__(self, name: str) -> np.ndarray:
        kind, row = self.layout[name]
        shape = (self.rows, *row)
        if name in self._zeros:
            return np.broadcast_to(np.zeros((), np.dtype(kind)), shape)
        return np.asarray(np.memmap(self._folder / name, np.dtype(kind), "r", shape=shape))

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout)

    def __len__(self) -> int:
        return len(self.layout)

    def having(self, layout: Layout) -> "Columns":
        """These columns, and those of another layout that are not among them, which are zero."""
        return Columns(self._folder, {**layout, **self.layout}, self.rows, self._zeros | (set(layout) - set(self)))

    def without(self, names: Collection[str]) -> "Columns":
        """These columns, less those that are named."""
        kept = {name: each for name, each in self.layout.items() if name not in names}
        return Columns(self._folder, kept, self.rows, self._zeros)
