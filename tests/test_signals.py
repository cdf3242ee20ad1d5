"""How a run ends when it is told to: SIGTERM and Ctrl-C save, and nothing is left behind either time."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from gipo.callbacks.last_checkpoint import LastCheckpoint
from gipo.cli import main
from gipo.module import GIPOModule
from tests.fingerprint import fingerprints
from tests.runs import Process, within

Args = Callable[..., list[str]]
Start = Callable[[list[str]], Process]

LONG = {"data__total_frames": 32 * 1000, "checkpoint__every": 1000}
WORKERS = {"data__collector__workers": 2, "data__collector__num_envs": 2, "data__collector__worker_timeout": 20}


@pytest.mark.parametrize(
    "workers", [pytest.param({}, marks=pytest.mark.campaign), WORKERS], ids=["in process", "two workers"]
)
def test_sigterm_saves_ends_with_143_in_seconds_and_resumes(
    workers: dict[str, object], start: Start, tiny: Args, tmp_path: Path
) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    process = start(tiny(**LONG | workers))
    process.wait_for_training()
    assert not last.exists()
    # To the whole group, as a batch system or `timeout` sends it.
    for pid in process.family():
        os.kill(pid, signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(20) == 128 + signal.SIGTERM, process.output
    assert time.monotonic() - began < 10
    (told,) = [line for line in process.output.splitlines() if "gipo: ended by SIGTERM after iteration" in line]
    assert "last.ckpt holds iteration" in told
    assert "Traceback" not in process.output
    assert within(20, lambda: not process.family())
    done = torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"]
    assert start(tiny(**LONG | {"data__total_frames": 32 * (done + 2), "ckpt_path": last})).wait(60) == 0
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"] == done + 2


@pytest.mark.usefixtures("no_plot")
def test_sigterm_just_after_the_last_look_for_it_still_saves(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard an iteration later."""
    look = LastCheckpoint.on_train_epoch_end

    def late(self: LastCheckpoint, trainer: Trainer, module: GIPOModule) -> None:
        look(self, trainer, module)
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    options = {"checkpoint__every": 3, "data__total_frames": 32 * 6, "data__task": "Tiny-v0"}
    main(tiny("whole", **options))
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_epoch_end", late)
        with pytest.raises(SystemExit, match="143"):
            main(tiny("stopped", **options | {"checkpoint__every": 100}))
    main(tiny("stopped", ckpt_path=last, **options))
    assert fingerprints(last) == fingerprints(tmp_path / "whole" / "checkpoints" / "last.ckpt")


@pytest.mark.campaign
def test_sigterm_resumed_equals_the_run_that_saved_there(start: Start, tiny: Args, tmp_path: Path) -> None:
    process = start(tiny("stopped", **LONG))
    process.wait_for_training()
    process.signal(signal.SIGTERM)
    assert process.wait(20) == 143
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    done = torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"]
    options = {"data__total_frames": 32 * done * 2, "checkpoint__every": done}
    whole = start(tiny("whole", **options))
    resumed = start(tiny("stopped", ckpt_path=last, **options))
    assert (whole.wait(60), resumed.wait(60)) == (0, 0)
    assert fingerprints(last) == fingerprints(tmp_path / "whole" / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize(
    "workers", [{}, pytest.param(WORKERS, marks=pytest.mark.campaign)], ids=["in process", "two workers"]
)
def test_ctrl_c_saves_and_leaves_nothing_behind(
    workers: dict[str, object], start: Start, tiny: Args, tmp_path: Path
) -> None:
    process = start(tiny(**LONG | workers | {"checkpoint__every": 1}))
    process.wait_for_training()
    for pid in process.family():  # a terminal sends it to all
        os.kill(pid, signal.SIGINT)
    assert process.wait(20) == 130
    assert "gipo: ended by Ctrl-C after iteration" in process.output
    assert "Traceback" not in process.output
    assert within(20, lambda: not process.family())
    assert not list((tmp_path / "run").glob("**/.*.partial"))
    torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
