"""A callback of `gipo fit` that notes when iterations end and evaluations begin and end.

It is given by name, as any callback is (`--trainer.callbacks+=…`), and imports nothing of gipo, so that a copy of this
folder times another version too.
"""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from .marks import note


class Clock(Callback):
    """Appends marks to a file.

    Args:
        file: to append to.
    """

    def __init__(self, file: str):
        self.file = file

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Note that an iteration has ended."""
        note(self.file, "iteration", position(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that an evaluation begins."""
        note(self.file, "pause", position(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that it has ended, with its success."""
        success = trainer.callback_metrics.get("val/success")
        note(self.file, "resume", position(trainer), None if success is None else float(success))


def position(trainer: Trainer) -> int:
    """Environment steps that the run has made."""
    steps: int = trainer.datamodule.position  # type: ignore[attr-defined]
    return steps
