"""The end of the last whole iteration, kept in memory: what a run that fails in the next one is saved as."""

import copy
from typing import Any

import torch
from lightning.pytorch import Trainer

from gipo.callbacks.data import data_of

GIB = 1 << 30


def kept(trainer: Trainer, limit: float) -> dict[str, Any] | None:
    """A copy of what a checkpoint would hold now; nothing of the run notices that it is taken.

    Args:
        trainer: at the end of an iteration.
        limit: GiB of tensors.

    Returns:
        None where the tensors are more than `limit`.
    """
    data = data_of(trainer)
    with data.unnoticed():
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return _copied(state) if _bytes(state) <= limit * GIB else None


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()  # also of one that is sparse
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list) else 0


def _copied(value: Any) -> Any:
    """Tensors, dicts and lists are written to as a run goes on; tuples and what else there is are not."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        found = copy.copy(value)  # with its metadata, where it is a state of torch's
        found.update({key: _copied(each) for key, each in value.items()})
        return found
    return [_copied(each) for each in value] if isinstance(value, list) else value
