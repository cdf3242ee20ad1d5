"""A folder with what training and a robot leave: a checkpoint, its artifact, and logs of what it did."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gipo.callbacks.checkpoint_io import AtomicCheckpointIO
from gipo.common.checkpoint_head import CHECKPOINT_FORMAT
from gipo.policies import Policy


@dataclass(frozen=True)
class Trained:
    """A folder with `policy.ckpt`, `policy.onnx` and `a.mcap`, `b.mcap`."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "policy.ckpt"

    @property
    def artifact(self) -> Path:
        return self.folder / "policy.onnx"

    @property
    def logs(self) -> list[Path]:
        return [self.folder / "a.mcap", self.folder / "b.mcap"]


def save_policy(policy: Policy, path: Path, **recorded: Any) -> Path:
    """A checkpoint as `gipo fit` writes it, without what only a resumed run needs."""
    known = {"format": CHECKPOINT_FORMAT, "policy": policy.description()}
    weights = {f"policy.{key}": value for key, value in policy.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint({"gipo": known | recorded, "state_dict": weights}, path)
    return path
