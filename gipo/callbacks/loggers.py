"""The loggers of a run, which go on when they cannot write: a full disk ends no training."""

import csv
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from gipo.callbacks.run_folder import shown
from gipo.common.files import of_the_disk, whole_file
from gipo.common.terminal import say_once


class CSV(CSVLogger):
    """`csv/version_N/metrics.csv`; rows that cannot be written wait for the next time."""

    @property
    @rank_zero_experiment
    def experiment(self) -> "Rows":
        """The writer of the file, made when it is first asked for."""
        if self._experiment is None:
            self._experiment = Rows(self.log_dir)
        return self._experiment  # type: ignore[return-value]


class Rows(ExperimentWriter):
    """A file of which only the last rows are missing, whatever could not be written."""

    def save(self) -> None:
        """Write the rows that wait; keep them where the disk takes none."""
        path, rows, columns = Path(self.metrics_file_path), list(self.metrics), list(self.metrics_keys)
        try:
            super().save()
        except OSError as error:
            self.metrics, self.metrics_keys = rows, columns
            if path.exists():
                os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
            say_once(f"{shown(path)}: {error.strerror or error}; its rows wait until there is space")

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """A new column: the old file stays until the new one is whole, where Lightning empties it first."""
        path = Path(self.metrics_file_path)
        with open(path, newline="") as old, whole_file(path) as partial, open(partial, "w", newline="") as new:
            writer = csv.DictWriter(new, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(old))


class TensorBoard(TensorBoardLogger):
    """`tensorboard/version_N`; what cannot be written is lost to it, and a new file begins when it can."""

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Write metrics, unless the disk is full."""
        self._unless_full(super().log_metrics, *args, **kwargs)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Write hyper-parameters, unless the disk is full."""
        self._unless_full(super().log_hyperparams, *args, **kwargs)

    def save(self) -> None:
        """Write what waits, unless the disk is full."""
        self._unless_full(super().save)

    def finalize(self, status: str) -> None:
        """Write what waits, unless the disk is full."""
        self._unless_full(super().finalize, status)

    def _unless_full(self, write: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        threading.excepthook = _excepthook
        try:
            write(*args, **kwargs)
        except Exception as error:  # Lightning tells it as a ValueError
            found = of_the_disk(error)
            if found is None:
                raise
            self._experiment = None  # its thread has ended, and would raise the same error for ever
            say_once(f"{shown(Path(self.log_dir))}: {found.strerror}; it misses what is logged meanwhile")


def _excepthook(args: Any) -> None:
    """TensorBoard's own thread ends by the error that its caller gets too."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)
