"""Checkpoints that a user's own callbacks keep: one that cannot be written is told, and ends no run."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from gipo.ending import reason, say

SAVING = ("_save_topk_checkpoint", "_save_last_checkpoint", "on_exception")  # methods, the trainer first
FOUND = (
    "best_k_models", "kth_best_model_path", "kth_value", "best_model_path", "best_model_score", "current_score",
    "last_model_path", "_last_global_step_saved", "_last_checkpoint_saved",
)  # fmt: skip


def spare_the_run(callback: ModelCheckpoint) -> None:
    """Have a save that fails leave the files and the callback as they were; it is tried again when the next is due."""
    for method in SAVING:
        setattr(callback, method, partial(_try, callback, getattr(callback, method)))


def _try(callback: ModelCheckpoint, save: Callable[..., None], trainer: Trainer, *arguments: Any) -> None:
    before = {name: copy.copy(getattr(callback, name)) for name in FOUND}
    try:
        save(trainer, *arguments)
    except OSError as error:
        trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other ranks are now
        vars(callback).update(before)
        say(trainer, f"{reason(error)}; the run goes on, and {type(callback).__name__} saves when it can")
