"""The loggers of a run, which go on when they cannot write: a full disk ends no training."""

import csv
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from gipo.callbacks.run_folder import shown
from gipo.common.files import of_the_disk, remove_partials, whole_file
from gipo.common.terminal import say_once


class CSV(CSVLogger):
    """`csv/version_N/metrics.csv`; rows that cannot be written wait for the next time."""

    @property
    @rank_zero_experiment
    def experiment(self) -> "Rows":
        """The writer of the file, made when it is first asked for; what killed runs left half-written goes."""
        if self._experiment is None:
            for folder in Path(self.root_dir).glob("version_*"):
                remove_partials(folder)
            self._experiment = Rows(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row, unless there is nothing but its place on the axis."""
        if metrics:
            super().log_metrics(metrics, step)


class Rows(ExperimentWriter):
    """A file of which only the last rows are missing, whatever could not be written."""

    _written = 0  # bytes of the file that hold rows which no longer wait

    def save(self) -> None:
        """Write the rows that wait; keep them, all or none, where the disk does not take them."""
        path, rows, columns = Path(self.metrics_file_path), list(self.metrics), list(self.metrics_keys)
        self._written = path.stat().st_size if path.exists() else 0
        try:
            super().save()
        except OSError as error:
            self.metrics, self.metrics_keys = rows, columns
            if self._written:
                os.truncate(path, self._written)
            else:  # without a header yet
                path.unlink(missing_ok=True)
            say_once(f"{shown(path)}: {error.strerror or error}; its rows wait until there is space")

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """A new column: the old file stays until the new one is whole, where Lightning empties it first."""
        path = Path(self.metrics_file_path)
        with open(path, newline="") as old, whole_file(path) as partial, open(partial, "w", newline="") as new:
            writer = csv.DictWriter(new, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(old))
        self._written = path.stat().st_size


def _unless_full(write: Callable[..., None]) -> Callable[..., None]:
    """A method of TensorBoard's logger that gives up what it writes where the disk is full."""

    @functools.wraps(write)
    def patient(self: "TensorBoard", *args: Any, **kwargs: Any) -> None:
        threading.excepthook = _excepthook
        try:
            write(self, *args, **kwargs)
        except Exception as error:  # Lightning tells it as a ValueError
            found = of_the_disk(error)
            if found is None:
                raise
            self._experiment = None  # its thread has ended, and would raise the same error for ever
            say_once(f"{shown(Path(self.log_dir))}: {found.strerror}; it misses what is logged meanwhile")

    return patient


class TensorBoard(TensorBoardLogger):
    """`tensorboard/version_N`; what cannot be written is lost to it, and a new file begins when it can."""

    log_metrics = _unless_full(TensorBoardLogger.log_metrics)
    log_hyperparams = _unless_full(TensorBoardLogger.log_hyperparams)
    save = _unless_full(TensorBoardLogger.save)
    finalize = _unless_full(TensorBoardLogger.finalize)


def _excepthook(args: Any) -> None:
    """TensorBoard's own thread ends by the error that its caller gets too."""
    if not (isinstance(args.exc_value, OSError) and type(args.thread).__name__ == "_AsyncWriterThread"):
        threading.__excepthook__(args)
