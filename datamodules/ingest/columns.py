"""Columns on their way into a store: one raw file a column, appended to episode by episode."""

from collections.abc import Mapping
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


def mapped(folder: Path, layout: Layout, rows: int) -> dict[str, np.ndarray]:
    """The columns [rows, …], mapped from the files and read-only."""
    return {
        name: np.asarray(np.memmap(folder / name, np.dtype(kind), "r", shape=(rows, *shape)))
        for name, (kind, shape) in layout.items()
    }
