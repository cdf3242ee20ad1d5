"""Demonstrations as a Minari dataset: whole or not at all."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.demos.dataset import refuse_taken, write
from datamodules.demos.demonstration import Demonstration
from datamodules.envs.tasks import simulation
from gipo.common.errors import UserError
from robots.review.export_minari import datasets_path

minari = pytest.importorskip("minari", reason="the extra `export`")
TASK = simulation("Pendulum-v1")


def demonstration(steps: int) -> Demonstration:
    observations = np.arange(3.0 * (steps + 1), dtype=np.float32).reshape(-1, 3)
    bound = np.ones(1, np.float32)
    return Demonstration(
        observations=observations, actions=np.zeros((steps, 1), np.float32), rewards=np.ones(steps), terminated=False,
        success=None, low=-bound, high=bound,
    )  # fmt: skip


def test_it_is_what_minari_reads(tmp_path: Path) -> None:
    place = write(tmp_path, TASK, [demonstration(2), demonstration(3)], "by hand")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == [
        "gipo/Pendulum-v1/data/main_data.hdf5", "gipo/Pendulum-v1/data/metadata.json", "gipo/namespace_metadata.json",
    ]  # fmt: skip
    with datasets_path(tmp_path):
        read = minari.load_dataset("gipo/Pendulum-v1")
    assert [len(each.actions) for each in read.iterate_episodes()] == [2, 3]
    with pytest.raises(UserError, match=f"{place} exists"):
        refuse_taken(tmp_path, TASK)


def test_a_folder_that_cannot_be_is_refused_before_any_attempt(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out \S+/file/demos cannot be written: Not a directory"):
        refuse_taken(tmp_path / "file" / "demos", TASK)
    refuse_taken(tmp_path / "new" / "demos", TASK)
    assert not (tmp_path / "new").exists(), "finding out leaves nothing behind"


FULL = """
import resource, sys
from pathlib import Path
from datamodules.demos.dataset import write
from gipo.common.errors import UserError
from tests.datamodules.demos.test_dataset import TASK, demonstration
made = [demonstration(20_000)]
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16,) * 2)
try:
    write(Path(sys.argv[1]), TASK, made, "by hand")
except UserError as error:
    print(error)
"""


def test_without_room_it_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    """Where HDF5 finds out itself it ends the process."""
    ended = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], check=False, capture_output=True, text=True)
    said = f"cannot write {tmp_path}/gipo/Pendulum-v1: File too large\n"
    assert (ended.returncode, ended.stdout) == (0, said), ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_of_one_that_was_interrupted_nothing_is_left_and_it_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = minari.create_dataset_from_buffers

    def interrupted(*given: Any, **options: Any) -> None:
        create(*given, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(minari, "create_dataset_from_buffers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, TASK, [demonstration(2)], "by hand")
    monkeypatch.undo()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert write(tmp_path, TASK, [demonstration(2)], "by hand").exists()
