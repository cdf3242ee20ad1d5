"""Callbacks of `gipo fit`: checkpoints, metrics of collection, the progress bar, the learning curves."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from tqdm.auto import tqdm

from gipo.errors import GipoError
from gipo.files import remove_partials, whole_file
from gipo.plots import plot_curves, write_table

_UNITS = {"frames": "step", "iterations": "iteration"}


class LastCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/last.ckpt`, from which a run resumes; also written on SIGTERM and after the last iteration.

    Args:
        every: iterations between two saves.
        keep: keep every save as `checkpoints/version-N.ckpt`, N the policy version.
    """

    def __init__(self, every: int = 10, keep: bool = False):
        if every < 1:
            raise GipoError(f"checkpoint.every must be at least 1 iteration, got {every}")
        super().__init__(
            filename="last", every_n_epochs=every, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.keep = keep

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear away what a killed run left half-written."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            remove_partials(Path(self.dirpath or "."))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when due, when told to end, and at the end."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.received_sigterm or trainer.should_stop or last:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        else:
            super().on_train_epoch_end(trainer, pl_module)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if self.keep and trainer.is_global_zero:
            # Another name of the same file: the next save puts a new file in the place of this one.
            with whole_file(Path(filepath).with_name(f"version-{int(_data(trainer).policy.version)}.ckpt")) as partial:
                os.link(filepath, partial)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save also when SIGTERM came just after the hook above had looked for it."""
        super().on_exception(trainer, pl_module, exception)
        if isinstance(exception, SIGTERMException) and self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class BestCheckpoint(ModelCheckpoint):
    """Keeps `checkpoints/best.ckpt`: highest `val/success`, or `val/return` where the task knows no success.

    Of equally good policies the latest is kept: it has learned from more.
    """

    def __init__(self) -> None:
        super().__init__(filename="best", monitor="val/success", mode="max", enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Pick what to watch."""
        super().setup(trainer, pl_module, stage)
        if not _data(trainer).has_success:
            self.monitor = "val/return"

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the policy just evaluated is to be kept."""
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return equal or super().check_monitor_top_k(trainer, current)


class CollectionMetrics(Callback):
    """Logs what the data module counts, and makes its count the x-axis of every logger."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log beside the metrics of the iteration."""
        pl_module.log_dict({**_data(trainer).metrics(), "step": float(_data(trainer).position)})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put validation figures on the same axis."""
        pl_module.log("step", float(_data(trainer).position))


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
        data = _data(trainer)
        if getattr(self, "_enabled", True):
            self._bar = tqdm(
                total=data.total, initial=data.position, unit=_UNITS[data.axis], unit_scale=True, smoothing=0.05,
                dynamic_ncols=True, desc=data.title,
            )  # fmt: skip

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Advance to where the run is."""
        if self._bar is not None:
            self._bar.update(_data(trainer).position - self._bar.n)
            self._bar.set_postfix(_headline(trainer), refresh=False)

    def on_train_end(self, *_: Any) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Close the bar, so that the error has a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Curves(Callback):
    """Keeps the learning and staleness curves in the checkpoint, and writes `curves.csv` and `curves.png` at the end.

    Args:
        points: at most this many rows of training metrics are kept; longer runs are thinned.
    """

    COLUMNS = (
        "train/return", "train/success", "val/return", "val/success", "val/success_low", "val/success_high",
        "val/success_last", "staleness/age_mean", "staleness/age_p95", "ratio/log_abs_p95", "weight/mean",
        "weight/ppo_dead", "weight/suppressed", "contribution/old_share", "ess/all", "kl", "explained_variance",
    )  # fmt: skip

    def __init__(self, points: int = 1000):
        self.points = points
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a row of every evaluation, in time for the best checkpoint to hold it."""
        if not trainer.sanity_checking:
            self._keep(trainer, self.COLUMNS)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a row of training metrics when it is due and evaluation has not left one."""
        every = max(1, math.ceil((trainer.max_epochs or 1) / self.points))
        data = _data(trainer)
        kept = bool(self.rows) and self.rows[-1][data.axis] == data.position
        if trainer.current_epoch % every == 0 and not kept:
            self._keep(trainer, [column for column in self.COLUMNS if not column.startswith("val/")])

    def _keep(self, trainer: Trainer, columns: Iterable[str]) -> None:
        metrics = trainer.callback_metrics
        row = {column: float(metrics[column]) for column in columns if column in metrics}
        self.rows.append({_data(trainer).axis: _data(trainer).position, **row})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files and say where everything is."""
        if not trainer.is_global_zero or not self.rows:
            return
        folder = Path(trainer.default_root_dir)
        write_table(self.rows, folder / "curves.csv")
        plot_curves(self.rows, folder / "curves.png", _data(trainer).title, _data(trainer).axis)

    def state_dict(self) -> dict[str, Any]:
        """All rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the curves of the interrupted run."""
        self.rows = list(state_dict["rows"])


def _data(trainer: Trainer) -> Any:
    """The data module, which Lightning's Trainer has but does not declare."""
    return trainer.datamodule  # type: ignore[attr-defined]


def _headline(trainer: Trainer) -> dict[str, str]:
    names = {"train/return": "return", "train/success": "success", "val/success": "eval", "ess/all": "ess"}
    metrics = trainer.callback_metrics
    return {short: f"{float(metrics[name]):.2f}" for name, short in names.items() if name in metrics}
