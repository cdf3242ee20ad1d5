"""How a run ends: whatever ends it, `LastCheckpoint.end` writes `last.ckpt` and says what it holds."""

import copy
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from gipo.callbacks.data import data_of
from gipo.callbacks.iteration_snapshot import kept
from gipo.callbacks.run_folder import shown
from gipo.common.checkpoint_head import read_head
from gipo.common.errors import UserError
from gipo.common.files import free_name, remove_partials, whole_file
from gipo.common.signals import Ended, listener, name
from gipo.common.terminal import tell
from gipo.distributed import ranks

STATE = (
    "best_k_models", "kth_best_model_path", "kth_value", "best_model_path", "best_model_score", "current_score",
    "last_model_path", "_last_global_step_saved", "_last_checkpoint_saved",
)  # fmt: skip


def save_or_stay(
    callback: ModelCheckpoint, save: Callable[..., None], trainer: Trainer, *arguments: Any, retry: str
) -> OSError | None:
    """Call `save`; where it cannot write, to a full disk above all, the run goes on and the callback is as it was.

    Args:
        callback: whose method `save` is; with its files it stays as it was.
        save: takes the trainer and the arguments.
        trainer: of the run.
        arguments: of `save`.
        retry: words for what happens when the next save is due: `saves`, `ModelCheckpoint saves`.

    Returns:
        Why nothing was saved.
    """
    before = {name: copy.copy(getattr(callback, name)) for name in STATE}
    try:
        save(trainer, *arguments)
    except OSError as error:
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other ranks are now
        vars(callback).update(before)
        say(trainer, f"{reason(error)}; the run goes on, and {retry} when it can")
        return error
    return None


class PatientCheckpoint(ModelCheckpoint):
    """A checkpoint that cannot be written does not end the run, and none takes the place of a later policy's."""

    unwritten: OSError | None = None  # why the newest is not on disk

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the checkpoint that is there, where it has learned more than what the run goes on from."""
        super().on_train_start(trainer, pl_module)
        path, version = self._path, int(data_of(trainer).policy.version)
        found = _version(path) if trainer.is_global_zero else None
        if found is not None and found > version:
            kept = _kept_beside(path)
            what = f"{shown(path)} holds policy version {found}, and this run goes on from {version}"
            say(trainer, f"note: {what}; it is kept as {kept.name}")

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        save = super()._save_topk_checkpoint
        self.unwritten = save_or_stay(self, save, trainer, monitor_candidates, retry="saves")

    @property
    def _folder(self) -> Path:
        return Path(self.dirpath or ".")

    @property
    def _path(self) -> Path:
        return self._folder / f"{self.filename}{self.FILE_EXTENSION}"


class LastCheckpoint(PatientCheckpoint):
    """Keeps `checkpoints/last.ckpt`, from which a run resumes: the end of the last whole iteration, however it ends.

    Args:
        every: iterations between two saves.
        keep: keep every save as `checkpoints/version-N.ckpt`, N the policy version.
        copy_gib: GiB of memory for a copy of the end of the last whole iteration, to be saved where the next one fails
            halfway. A run whose policy, optimizer and buffer are larger, or that several learners share, then keeps its
            last save.
    """

    def __init__(self, every: int = 10, keep: bool = False, copy_gib: float = 1.0):
        if every < 1:
            raise UserError(f"checkpoint.every must be at least 1 iteration, got {every}")
        if not copy_gib >= 0:
            raise UserError(f"checkpoint.copy_gib must not be negative, got {copy_gib}")
        super().__init__(
            filename="last", every_n_epochs=every, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self.keep, self.copy_gib = keep, copy_gib
        self._whole: int | None = None  # iterations that are done, while training
        self._began, self._saved = 0, 0  # of these, what the run began with, and what is on disk
        self._copy: dict[str, Any] | None = None  # of the last whole iteration, where it is not

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear away what a killed run left half-written."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            remove_partials(self._folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a run begins with needs no saving; from now on a signal waits for the end of an iteration."""
        super().on_train_start(trainer, pl_module)
        self._whole = self._began = self._saved = _iterations(trainer)
        listener.install()  # Lightning has one of its own, which starts a collective from within the signal
        listener.patient = True

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An evaluation may take minutes: a signal ends it, and the iteration with it, where the one before is kept."""
        if self._whole is not None and self._can_rewind():
            listener.end()
            listener.patient = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have a signal wait for the end of an iteration again: training goes on."""
        super().on_validation_end(trainer, pl_module)
        listener.patient = self._whole is not None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when due, when a save is overdue, and when this iteration is the last."""
        self._whole = iteration = _iterations(trainer)
        due = iteration % self._every_n_epochs == 0 or self.unwritten is not None
        if due or trainer.received_sigterm or why_it_stops(trainer) is not None:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if self._saved != iteration and self.copy_gib and ranks.count() == 1:
            self._copy = kept(trainer, self.copy_gib)
            if self._copy is None:
                self.copy_gib = 0.0  # a run does not get smaller

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what a run that ended in good order has not written yet."""
        self.end(trainer, None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what a run that an error or a signal ended has not written yet."""
        if self._whole is not None:
            self.end(trainer, exception)

    def end(self, trainer: Trainer, cause: BaseException | None) -> None:
        """Write what was not written yet, and say what ended the run and what `last.ckpt` holds.

        Args:
            trainer: of the run.
            cause: what ended it; None for an end in good order, which is told when all files are written.

        Raises:
            UserError: when an end in good order cannot be saved.
        """
        listener.patient = False
        problem = self.unwritten if self._copy is None else self._write_copy(trainer, self._copy)
        lines = [] if problem is None else [reason(problem)]
        if self._saved == self._began:
            lines.append(f"{shown(self._path)} is as it was" if self._path.exists() else "there is no checkpoint yet")
        else:
            lines.append(f"{shown(self._path)} holds iteration {self._saved}")
        whole, self._whole = self._whole, None  # what goes wrong from here on is not the run's
        if self._saved != whole:
            lines.append(f"what iterations {self._saved + 1} to {whole} learned is lost")
        if cause is None and self._saved != whole:
            raise UserError("; ".join(lines))
        if cause is not None:
            say(trainer, "; ".join([_told(cause, whole or 0), *lines]))

    def _write_copy(self, trainer: Trainer, copy: dict[str, Any]) -> OSError | None:
        try:
            trainer.strategy.checkpoint_io.save_checkpoint(copy, self._path)
            self._written(trainer, str(self._path), copy["state_dict"]["policy.version"])
        except OSError as error:
            return error
        return None

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._written(trainer, filepath, data_of(trainer).policy.version)

    def _written(self, trainer: Trainer, filepath: str, version: Tensor) -> None:
        """The last whole iteration is on disk; it may have to be kept under another name too."""
        assert self._whole is not None
        self._saved, self._copy = self._whole, None
        if self.keep and trainer.is_global_zero:
            _name_too(Path(filepath), f"version-{int(version)}.ckpt")

    def _can_rewind(self) -> bool:
        """Whether an iteration may be given up halfway, as the one before it is on disk or in memory."""
        return ranks.count() == 1 and (self._whole == self._saved or self._copy is not None)


class BestCheckpoint(PatientCheckpoint):
    """Keeps `checkpoints/best.ckpt`: highest `val/success`, or `val/return` where the task knows no success.

    Of equally good policies the latest is kept: it has learned from more.
    """

    def __init__(self) -> None:
        # After each evaluation, and before the end of its iteration, where `last.ckpt` keeps what was best so far.
        super().__init__(
            filename="best", monitor="val/success", mode="max", save_on_train_epoch_end=False,
            enable_version_counter=False,
        )  # fmt: skip

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch `val/return` where the task knows no success."""
        super().setup(trainer, pl_module, stage)
        if not data_of(trainer).has_success:
            self.monitor = "val/return"

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether the policy just evaluated is to be kept."""
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        return equal or super().check_monitor_top_k(trainer, current)


def _name_too(path: Path, name: str) -> Path:
    """Have a checkpoint under another name beside it, too: the next save puts a new file in its place."""
    with whole_file(path.with_name(name)) as partial:
        try:  # another name of the same file
            os.link(path, partial)
        except OSError:  # of a file system that has no such names
            shutil.copyfile(path, partial)
    return path.with_name(name)


def _kept_beside(path: Path) -> Path:
    """Where a checkpoint is found beside itself, whatever becomes of its own name."""
    for other in path.parent.glob("*.ckpt"):
        if other != path and other.samefile(path):
            return other
    return _name_too(path, free_name(path).name)


def _version(path: Path) -> int | None:
    """The version of the policy in a checkpoint; None where there is none that can be read."""
    try:
        return read_head(path).version
    except UserError:
        return None


def why_it_stops(trainer: Trainer) -> str | None:
    """What makes the iteration that has just been done the last one; None when it is not."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return f"stopped by trainer.max_steps={trainer.max_steps} (updates)"
    if trainer.max_epochs not in (None, -1) and _iterations(trainer) >= trainer.max_epochs:
        whole: int = data_of(trainer).iterations
        return "done" if trainer.max_epochs >= whole else f"stopped by trainer.max_epochs={trainer.max_epochs}"
    if not (trainer.should_stop and trainer.fit_loop._can_stop_early):
        return None
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(one, Timer) and (one.time_remaining() or 0) <= 0 for one in callbacks):
        return "stopped by trainer.max_time"
    return "stopped by EarlyStopping" if trainer.early_stopping_callbacks else "stopped by a callback"


def say(trainer: Trainer, line: str) -> None:
    """One line on stderr, of the first rank, beside the progress bar."""
    if trainer.is_global_zero:
        tell(f"gipo: {line}")


def _iterations(trainer: Trainer) -> int:
    """How many iterations are done, also within the hooks at the end of one."""
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


def _told(cause: BaseException, whole: int) -> str:
    if isinstance(cause, SIGTERMException):  # how Lightning ends at the end of an iteration
        return f"ended by {name(listener.heard or signal.SIGTERM)} after iteration {whole}"
    if isinstance(cause, Ended):
        cause.told = True
        return f"ended by {name(cause.number)} in iteration {whole + 1}"
    return f"the run failed in iteration {whole + 1}"


def reason(error: OSError) -> str:
    """Which file could not be written, and why."""
    where = "" if error.filename is None else f"{shown(Path(os.path.abspath(error.filename)))}: "
    return f"{where}{error.strerror or error}"
