"""Lightning's own callbacks and loggers work on these runs, and ours keep what they promise."""

import csv
import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gipo.callbacks.last_checkpoint import LastCheckpoint
from gipo.callbacks.loggers import Rows
from gipo.callbacks.plots import plot_curves
from gipo.callbacks.reporting import _begin_with
from gipo.cli import main
from gipo.common.errors import UserError
from gipo.common.tables import write_table

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"frames,val/return\r\n32,\r\n64,0.1\r\n", True),
        (b"frames\r\n32\r\n", True),
        (b"frames,val/return\r\n32,\r\n64,0.2\r\n", False),
        (b"frames,val/return\r\n64,0.1\r\n", False),
        (b"frames,val/return\r\n32,\r\n64,0.1\r\n96,nan\r\n128,\r\n", False),
        (b"frames,val/return\r\n32,\r\n64,0.1,7\r\n", False),
        (b"frames\r\n32\r\n\xff\r\n", False),
    ],
)
def test_curves_go_on_from_a_table_with_the_same_rows_alone(text: bytes, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_bytes(text)
    rows = [{"frames": 32}, {"frames": 64, "val/return": 0.1}, {"frames": 96, "val/return": float("nan")}]
    assert _begin_with(rows, tmp_path / "curves.csv") is expected


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
def test_versions_are_kept_where_a_file_has_but_one_name(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    main(tiny(data__task="Tiny-v0", data__total_frames=32 * 2, checkpoint__keep="true"))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert (checkpoints / "version-2.ckpt").read_bytes() == (checkpoints / "last.ckpt").read_bytes()


def test_a_disk_that_took_some_of_the_rows_has_each_of_them_once(tmp_path: Path) -> None:
    """Also with the rows before them, a new column, and a file that could not even begin."""
    rows = Rows(str(tmp_path))
    file = tmp_path / "metrics.csv"

    def logged(*steps: int, room: int = resource.RLIM_INFINITY, **more: float) -> None:
        for step in steps:
            rows.log_metrics({"kl": step / 8, **more}, step)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            rows.save()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    logged(0, 1, room=4)
    assert not file.exists()
    logged(2, 3)
    logged(*range(4, 4000), room=20_000)
    assert len(file.read_text().splitlines()) == 1 + 4
    logged(4000, room=20_000, loss=1.0)
    logged(4001)
    with open(file) as found:
        assert [int(row["step"]) for row in csv.DictReader(found)] == list(range(4002))


@pytest.mark.usefixtures("no_plot")
def test_a_version_saved_twice_is_the_later_one(tiny: Args, tmp_path: Path) -> None:
    options = {"data__task": "Tiny-v0", "data__total_frames": 32 * 2, "checkpoint__keep": "true"}
    main(tiny(**options, model__critic_warmup=2))
    checkpoints = tmp_path / "run" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"last.ckpt", "version-0.ckpt"}
    assert (checkpoints / "version-0.ckpt").samefile(checkpoints / "last.ckpt")
