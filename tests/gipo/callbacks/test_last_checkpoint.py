"""A checkpoint that cannot be written leaves what is known of the others as it was; whole runs are in other tests."""

import copy
import errno
import io
import sys

import pytest
import torch
from lightning.pytorch import Trainer

from gipo.callbacks.last_checkpoint import STATE, BestCheckpoint, save_or_stay, say


def test_a_policy_that_could_not_be_written_is_not_taken_for_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    best = BestCheckpoint()
    best.best_model_score, best.best_model_path = torch.tensor(0.2), "best.ckpt"
    best.best_k_models["best.ckpt"] = torch.tensor(0.2)
    before = {name: copy.copy(getattr(best, name)) for name in STATE}
    full = OSError(errno.ENOSPC, "No space left on device", "best.ckpt")

    def save(trainer: Trainer) -> None:
        best.best_model_score = best.best_k_models["best.ckpt"] = torch.tensor(0.9)
        raise full

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert save_or_stay(best, save, trainer, retry="saves") is full
    assert {name: getattr(best, name) for name in STATE} == before
    assert "best.ckpt: No space left on device; the run goes on, and saves when it can" in capsys.readouterr().err


def test_what_nobody_can_read_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    (closed := io.StringIO()).close()
    monkeypatch.setattr(sys, "stderr", closed)
    say(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), "the run goes on")
