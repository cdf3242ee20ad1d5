"""Lightning's own callbacks and loggers work on these runs, and ours keep what they promise."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gipo.callbacks.last_checkpoint import LastCheckpoint
from gipo.callbacks.plots import plot_curves, write_table
from gipo.cli import main
from gipo.common.errors import UserError

Args = Callable[..., list[str]]
EVALUATED = {"data__task": "Tiny-v0", "trainer__check_val_every_n_epoch": 1, "data__evaluation__episodes": 4}


@pytest.mark.usefixtures("no_plot")
def test_lightnings_callbacks_watch_the_evaluation(tiny: Args, tmp_path: Path) -> None:
    extra = [
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.monitor=val/return",
        "--trainer.callbacks.mode=max",
        "--trainer.callbacks.filename=mine",
        "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/return",
        "--trainer.callbacks.mode=max",
        "--trainer.callbacks.min_delta=1000",
        "--trainer.callbacks.patience=2",
    ]
    main([*tiny(**EVALUATED | {"data__total_frames": 32 * 20, "checkpoint__every": 100}), *extra])
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt", "mine.ckpt"}
    # Stopped early, and saved where it stopped.
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["OnlineDataModule"]["iteration"] == 3


@pytest.mark.usefixtures("no_plot")
def test_success_picks_the_best_checkpoint_of_metaworld_and_csv_logs_everything(tiny: Args, tmp_path: Path) -> None:
    main(tiny(trainer__check_val_every_n_epoch=2))
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    watched = [key for key in best["callbacks"] if "BestCheckpoint" in key]
    assert "'val/success'" in watched[0]
    with open(tmp_path / "run" / "csv" / "version_0" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert {"val/success", "val/return", "staleness/age_mean", "kl", "weight/mean", "skipped"} <= set(rows[0])
    frames = [int(float(row["step"])) for row in rows if row["kl"]]
    assert frames == [32, 64, 96, 128]
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_curves_are_drawn_and_written(tiny: Args, tmp_path: Path) -> None:
    main(tiny(**EVALUATED))
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "run" / "curves.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["frames"])) for row in rows] == [32, 64, 96, 128]
    assert all(row["val/return"] and row["staleness/age_mean"] for row in rows)


def test_columns_that_appear_late_are_empty_before(tmp_path: Path) -> None:
    rows = [{"frames": 1.0, "kl": 0.5}, {"frames": 2.0, "val/success": 1.0}]
    write_table(rows, tmp_path / "curves.csv")
    assert (tmp_path / "curves.csv").read_text().splitlines() == ["frames,kl,val/success", "1.0,0.5,", "2.0,,1.0"]
    plot_curves(rows, tmp_path / "curves.png", title="x")


@pytest.mark.parametrize("every", [0, -3])
def test_a_save_interval_is_positive(every: int) -> None:
    with pytest.raises(UserError, match=r"checkpoint\.every"):
        LastCheckpoint(every)


@pytest.mark.usefixtures("no_plot")
def test_kept_checkpoints_bear_their_policy_version_and_outlive_the_last(tiny: Args, tmp_path: Path) -> None:
    options = {
        "data__task": "Tiny-v0",
        "data__total_frames": 32 * 5,
        "checkpoint__every": 2,
        "checkpoint__keep": "true",
    }
    main(tiny(**options))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {
        "last.ckpt", "version-2.ckpt", "version-4.ckpt", "version-5.ckpt",
    }  # fmt: skip
    for version in (2, 4, 5):
        kept = torch.load(checkpoints / f"version-{version}.ckpt", weights_only=True)
        assert int(kept["state_dict"]["policy.version"]) == kept["OnlineDataModule"]["iteration"] == version
    assert (checkpoints / "version-5.ckpt").samefile(checkpoints / "last.ckpt")
    # A kept one is a place to go on from, and the others stay as they are.
    old = (checkpoints / "version-5.ckpt").read_bytes()
    main(tiny(ckpt_path=checkpoints / "version-4.ckpt", **options | {"data__total_frames": 32 * 6}))
    assert (checkpoints / "version-5.ckpt").read_bytes() == old
    assert (checkpoints / "version-6.ckpt").samefile(checkpoints / "last.ckpt")


@pytest.mark.usefixtures("no_plot")
def test_a_version_saved_twice_is_the_later_one(tiny: Args, tmp_path: Path) -> None:
    options = {"data__task": "Tiny-v0", "data__total_frames": 32 * 2, "checkpoint__keep": "true"}
    main(tiny(**options, model__critic_warmup=2))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"last.ckpt", "version-0.ckpt"}
    assert (checkpoints / "version-0.ckpt").samefile(checkpoints / "last.ckpt")
