"""Callbacks and loggers that a user names: what goes wrong in them is told by name, and costs no checkpoint."""

import csv
import errno
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer

from gipo.callbacks.checkpoint_io import AtomicCheckpointIO
from gipo.callbacks.reporting import CollectionMetrics
from gipo.cli import main
from gipo.commands.fit import user_callbacks
from gipo.commands.fit.user_callbacks import at_fault
from gipo.distributed import ranks
from tests.test_bad_input import refused

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
        "gipo.callbacks.reporting.CollectionMetrics.on_train_epoch_start",
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


NAMED = {
    "callbacks=LearningRateMonitor": (
        "trainer.callbacks=LearningRateMonitor: Cannot use `LearningRateMonitor` callback with `Trainer` that has no "
    ),
    "callbacks=StochasticWeightAveraging swa_lrs=0.01": (
        "trainer.callbacks=StochasticWeightAveraging does not work here: policy and critic learn apart; EMAWeight"
    ),
    "callbacks=SpikeDetection": (
        "trainer.callbacks=SpikeDetection does not work here: policy and critic have a loss each; a loss that is no"
    ),
    "callbacks=LearningRateFinder": (
        "trainer.callbacks=LearningRateFinder does not work here: policy and critic learn apart; model.policy_lr and"
    ),
    "callbacks=BatchSizeFinder": "trainer.callbacks=BatchSizeFinder does not work here: data.batch is the size",
    "callbacks=EarlyStopping monitor=val/retrn": (
        "trainer.callbacks=EarlyStopping: there is no metric val/retrn; the nearest: val/return"
    ),
    "callbacks=ModelCheckpoint monitor=val/retrn": (
        "trainer.callbacks=ModelCheckpoint: there is no metric val/retrn; the nearest: val/return"
    ),
    "callbacks=EMAWeightAveraging": (
        "trainer.callbacks=EMAWeightAveraging would average the policy's version and moments with its weights; add "
        "--trainer.callbacks.use_buffers=false"
    ),
    "callbacks=BackboneFinetuning": "trainer.callbacks=BackboneFinetuning: 'GIPOModule' object has no attribute",
}


@pytest.mark.parametrize("given", NAMED)
def test_what_a_callback_of_lightnings_cannot_do_here_is_told_by_its_name(
    given: str, tiny: Args, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = given.removeprefix("callbacks=").split()
    args = [f"--trainer.callbacks+={name}", *(f"--trainer.callbacks.{option}" for option in options)]
    tiny_run = tiny(data__task="Tiny-v0", trainer__check_val_every_n_epoch=1, trainer__logger="false")
    assert refused([*tiny_run, *args], capsys).startswith(f"error: {NAMED[given]}")


def test_averaged_weights_are_what_is_saved_as_the_version_that_they_are(tiny: Args, tmp_path: Path) -> None:
    averaged = ("EMAWeightAveraging", "use_buffers=false", "decay=0.5")
    args = [f"--trainer.callbacks+={averaged[0]}", *(f"--trainer.callbacks.{option}" for option in averaged[1:])]
    main([*tiny(data__task="Tiny-v0"), *args])
    (last,) = tmp_path.rglob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    mean, newest = saved["state_dict"], saved["current_model_state"]
    assert mean["policy.version"] == newest["policy.version"] == saved["OnlineDataModule"]["iteration"]
    moved = [name for name in mean if not torch.equal(mean[name], newest[name])]
    assert moved
    assert not [name for name in moved if not name.endswith(("weight", "bias"))]  # no moments, no bounds


def test_averaged_weights_of_several_learners_are_refused(tiny: Args, capsys: pytest.CaptureFixture[str]) -> None:
    averaged = ("+=EMAWeightAveraging", ".use_buffers=false")
    args = tiny(data__task="Tiny-v0", trainer__devices=2, trainer__strategy="ddp")
    error = refused([*args, *(f"--trainer.callbacks{each}" for each in averaged)], capsys)
    assert error.startswith("error: trainer.callbacks=EMAWeightAveraging copies the learner, and one of several cannot")


@pytest.mark.parametrize("callback", [Timer(), CollectionMetrics()], ids=["a user's choice", "ours"])
def test_a_learner_that_is_lost_is_no_fault_of_the_callback_that_waited_for_it(
    callback: Callback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of one that a user named, nor of ours, which every run has."""
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(user_callbacks, "of_a_users_class", lambda error: None)  # this file would be one
    library: dict[str, Any] = {}
    exec(compile("def gather(self, text): raise RuntimeError(text)", "<library>", "exec"), library)
    for text in ("[gloo/transport/tcp/pair.cc:553] Connection closed by peer", "a bug"):
        with pytest.raises(RuntimeError) as raised:
            library["gather"](callback, text)
        told = text == "a bug" and isinstance(callback, Timer)
        found = at_fault(raised.value, {"callbacks": [callback]})
        assert found == (f"trainer.callbacks=Timer: {text}" if told else None)


def test_a_sampler_that_raises_is_told_by_its_name(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own_sampler.py").write_text(
        "from torchrl.data import RandomSampler\n"
        "class Few(RandomSampler):\n"
        "    def __init__(self, k: int = 1):\n"
        "        raise ValueError(f'k must be at least 2, got {k}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    args = tiny(data__task="Tiny-v0", data__sampler="own_sampler.Few")
    assert refused(args, capsys).startswith("error: own_sampler.Few cannot be made: k must be at least 2, got 1")


def test_a_logger_that_is_not_installed_is_told_by_its_name(tiny: Args, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed here")
    error = refused([*tiny(data__task="Tiny-v0"), "--trainer.logger=WandbLogger"], capsys)
    assert error.startswith("error: lightning.pytorch.loggers.WandbLogger cannot be made: Requirement 'wandb")
    assert "pip install" in error


def test_a_timer_is_written_into_the_configuration(tiny: Args, tmp_path: Path) -> None:
    timer = ("--trainer.callbacks+=Timer", "--trainer.callbacks.duration=00:01:00:00")
    main([*tiny(data__task="Tiny-v0", data__total_frames=32), *timer])
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"


class Twofold(Callback):
    """Ends a run, and fails once more when it hears of it."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise ValueError("the first cause")

    def on_exception(self, *_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "mine.log")


def test_a_callback_that_fails_at_the_end_of_a_run_costs_no_checkpoint_and_hides_no_cause(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = tiny(data__task="Tiny-v0", checkpoint__every=100)
    with pytest.raises(SystemExit, match="2"):
        main([*args, f"--trainer.callbacks+={__name__}.Twofold"])
    error = capsys.readouterr().err
    assert "gipo: Twofold failed at the end of the run: OSError in on_exception (" in error
    assert "ValueError in on_train_epoch_end (" in error
    assert "the first cause" in error
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["OnlineDataModule"]["iteration"] == 2


class Odd(Callback):
    """Keeps what only running code could read again."""

    def state_dict(self) -> dict[str, Any]:
        return {"path": Path("x")}


class Foreign(Callback):
    """Keeps what torch's reader takes, and no dict of a checkpoint has."""

    def state_dict(self) -> dict[str, Any]:
        return {"frames": {b"camera": 3}}


class Unpicklable(Callback):
    """Keeps what cannot be written."""

    def state_dict(self) -> dict[str, Any]:
        return {"function": lambda: None}


def test_a_state_that_could_not_be_read_again_is_left_out_and_told(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [f"--trainer.callbacks+={__name__}.{name}" for name in ("Odd", "Foreign", "Unpicklable")]
    main([*tiny(data__task="Tiny-v0", data__total_frames=64), *args])
    error = capsys.readouterr().err
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    for name in ("Odd", "Foreign", "Unpicklable"):
        assert error.count(f"gipo: the state of {name} is left out of checkpoints, as it is no plain data: ") == 1
        assert name not in torch.load(last, weights_only=True)["callbacks"]
    main([*tiny(data__task="Tiny-v0", data__total_frames=96, ckpt_path=last), *args])
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"] == 3


def test_a_profiler_says_what_it_measured(tiny: Args, caplog: pytest.LogCaptureFixture) -> None:
    main(tiny(data__task="Tiny-v0", trainer__profiler="simple", trainer__logger="false"))
    assert "FIT Profiler Report" in caplog.text


class Noted(Callback):
    """Logs at the end of every iteration."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log("mine", float(trainer.current_epoch))


def test_what_a_callback_logs_stands_on_the_axis_of_the_run(tiny: Args, tmp_path: Path) -> None:
    main([*tiny(data__task="Tiny-v0"), f"--trainer.callbacks+={__name__}.Noted"])
    with open(tmp_path / "run" / "csv" / "version_0" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["mine"]) for row in rows if row["mine"]] == [
        ("32", "0.0"), ("64", "1.0"), ("96", "2.0"), ("128", "3.0")
    ]  # fmt: skip
    assert all(any(value for name, value in row.items() if name != "step") for row in rows), "a row says something"
