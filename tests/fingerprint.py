"""A hash of everything in a checkpoint that decides how a run goes on."""

import hashlib
from pathlib import Path
from typing import Any

import torch

# Lightning keeps file names and wall-clock figures elsewhere in a checkpoint; these say nothing of the run's course.
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "gipo")
DATA_MODULES = ("OnlineDataModule", "OfflineDataModule")


def fingerprints(path: Path) -> dict[str, str]:
    """Hash of each part of the checkpoint at `path`: equal runs have equal ones, and a difference names its part."""
    checkpoint = torch.load(path, weights_only=True)
    parts = {name: checkpoint[name] for name in PARTS}
    (data,) = (checkpoint[name] for name in DATA_MODULES if name in checkpoint)
    parts |= {f"data/{name}": value for name, value in data.items()}
    parts["curves"] = checkpoint["callbacks"]["Curves"]
    return {name: _digest(value) for name, value in parts.items()}


def _digest(value: Any) -> str:
    state = hashlib.sha256()
    _feed(state, value)
    return state.hexdigest()[:16]


def _feed(state: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        state.update(f"{value.dtype}{tuple(value.shape)}".encode())
        state.update(value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            state.update(f"{key!r}:".encode())
            _feed(state, value[key])
    elif isinstance(value, (list, tuple)):
        state.update(f"[{len(value)}".encode())
        for item in value:
            _feed(state, item)
    else:
        state.update(f"{type(value).__name__}{value!r}".encode())
