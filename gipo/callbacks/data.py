"""The data of a run, as its callbacks reach them."""

from typing import Any

from lightning.pytorch import Trainer


def data_of(trainer: Trainer) -> Any:
    """The data module, which Lightning's Trainer has but does not declare."""
    return trainer.datamodule  # type: ignore[attr-defined]
