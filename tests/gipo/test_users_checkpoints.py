"""A user's own ModelCheckpoint: what it cannot write ends no run, and costs no file that it wrote before."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gipo.checkpoints import AtomicCheckpointIO
from gipo.cli import main

Args = Callable[..., list[str]]

pytestmark = pytest.mark.usefixtures("no_plot")


def test_a_full_disk_ends_no_run_and_costs_no_file(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, mine = AtomicCheckpointIO.save_checkpoint, tmp_path / "mine"

    def full_from_the_third_on(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Any, **rest: Any) -> None:
        if Path(path).parent == mine and checkpoint["epoch"] in (2, 3):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(self, checkpoint, path, **rest)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", full_from_the_third_on)
    options = ("ModelCheckpoint", f"dirpath={mine}", "every_n_epochs=1", "save_on_train_epoch_end=true")
    args = [f"--trainer.callbacks+={options[0]}", *(f"--trainer.callbacks.{option}" for option in options[1:])]
    kept = []
    monkeypatch.setattr(
        "gipo.callbacks.CollectionMetrics.on_train_epoch_start",
        lambda self, trainer, module: kept.append(sorted(path.name for path in mine.glob("*"))), raising=False,
    )  # fmt: skip
    main([*tiny(data__task="Tiny-v0", data__total_frames=32 * 5), *args])
    epochs = [[int(re.findall(r"epoch=(\d+)", name)[0]) for name in names] for names in kept]
    assert epochs == [[], [0], [1], [1], [1]]  # the newest that could be written is kept, and it alone
    (last,) = mine.glob("*.ckpt")
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"] == 5
    told = [line for line in capsys.readouterr().err.splitlines() if "No space left" in line]
    assert len(told) == 2
    assert told[0].endswith("No space left on device; the run goes on, and ModelCheckpoint saves when it can")
