"""docs/metrics.md defines every number that a run logs."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from gipo.cli import main

ROOT = Path(__file__).parents[2]
AXES = {"frames", "epoch", "step", "replay/size"}  # positions and sizes


@pytest.mark.usefixtures("no_plot")
def test_every_logged_number_is_defined(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    main(tiny(data__total_frames=64, trainer__check_val_every_n_epoch=2, data__task="Tiny-v0"))
    with open(tmp_path / "run" / "curves.csv") as file:
        logged = set(next(csv.reader(file)))
    assert {"kl", "ess/all", "val/return"} <= logged
    text = (ROOT / "docs" / "metrics.md").read_text()
    ends = ("_low", "_high")
    assert {name for name in logged - AXES if not name.endswith(ends) and f"`{name}`" not in text} == set()
