"""Callbacks of `gipo fit`: metrics of collection, the progress bar, the learning curves."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm.auto import tqdm

from gipo.callbacks.data import data_of
from gipo.callbacks.last_checkpoint import say
from gipo.callbacks.plots import plot_curves
from gipo.callbacks.run_folder import shown
from gipo.common.files import free_name
from gipo.common.tables import write_table

_UNITS = {"frames": "step", "iterations": "iteration"}


class CollectionMetrics(Callback):
    """Logs what the data module counts, and makes its count the x-axis of every logger."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log beside the metrics of the iteration."""
        pl_module.log_dict({**data_of(trainer).metrics(), "step": float(data_of(trainer).position)})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put what others log at the end of an iteration on the same axis."""
        pl_module.log("step", float(data_of(trainer).position))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put validation figures on the same axis."""
        pl_module.log("step", float(data_of(trainer).position))


class RunProgress(ProgressBar):
    """One bar over environment steps or iterations, with speed, return and success."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None

    def disable(self) -> None:
        """Called by Lightning on ranks that must be silent."""
        self._enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar where the run stands."""
        data = data_of(trainer)
        if getattr(self, "_enabled", True):
            self._bar = tqdm(
                total=data.total, initial=data.position, unit=_UNITS[data.axis], unit_scale=True, smoothing=0.05,
                dynamic_ncols=True, desc=data.title,
            )  # fmt: skip

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Advance to where the run is."""
        if self._bar is not None:
            self._bar.update(data_of(trainer).position - self._bar.n)
            self._bar.set_postfix(_headline(trainer), refresh=False)

    def on_train_end(self, *_: Any) -> None:
        """Close the bar, so that what is said next has a line of its own."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_exception(self, *_: Any) -> None:
        """The error has a line of its own too."""
        self.on_train_end()


class Curves(Callback):
    """Keeps learning and staleness curves in the checkpoint, and writes `curves.csv` and `curves.png` at the end."""

    POINTS = 1000  # rows of training metrics at most: of longer runs, not every iteration is kept
    COLUMNS = (
        "train/return", "train/success", "val/return", "val/success", "val/success_low", "val/success_high",
        "val/success_last", "staleness/age_mean", "staleness/age_p95", "ratio/log_abs_p95", "weight/mean",
        "weight/ppo_dead", "weight/suppressed", "contribution/old_share", "ess/all", "kl", "explained_variance",
    )  # fmt: skip

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a row of every evaluation, in time for the best checkpoint to hold it."""
        if not trainer.sanity_checking:
            self._keep(trainer, self.COLUMNS)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a row of training metrics when it is due and evaluation has not left one."""
        every = max(1, math.ceil((trainer.max_epochs or 1) / self.POINTS))
        data = data_of(trainer)
        kept = bool(self.rows) and self.rows[-1][data.axis] == data.position
        if trainer.current_epoch % every == 0 and not kept:
            self._keep(trainer, [column for column in self.COLUMNS if not column.startswith("val/")])

    def _keep(self, trainer: Trainer, columns: Iterable[str]) -> None:
        metrics = trainer.callback_metrics
        row = {column: float(metrics[column]) for column in columns if column in metrics}
        self.rows.append({data_of(trainer).axis: data_of(trainer).position, **row})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `curves.csv` and `curves.png`, where any row was kept; of a table that has others nothing is lost."""
        if not trainer.is_global_zero or not self.rows:
            return
        folder = Path(trainer.default_root_dir)
        path = folder / "curves.csv"
        if path.exists() and not _begin_with(self.rows, path):
            kept = path.rename(free_name(path))
            say(trainer, f"note: {shown(path)} had rows that this run has not; it is kept as {kept.name}")
        write_table(self.rows, path)
        plot_curves(self.rows, folder / "curves.png", data_of(trainer).title, data_of(trainer).axis)

    def state_dict(self) -> dict[str, Any]:
        """The rows that are kept so far."""
        return {"rows": tuple(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the curves of the interrupted run."""
        self.rows = list(state_dict["rows"])


def _begin_with(rows: list[dict[str, float]], path: Path) -> bool:
    """Whether rows go on from those of a table."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            found = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error):
        return False
    return found == [{name: str(value) for name, value in row.items()} for row in rows[: len(found)]]


def _headline(trainer: Trainer) -> dict[str, str]:
    names = {"train/return": "return", "train/success": "success", "val/success": "eval", "ess/all": "ess"}
    metrics = trainer.callback_metrics
    return {short: f"{float(metrics[name]):.2f}" for name, short in names.items() if name in metrics}
