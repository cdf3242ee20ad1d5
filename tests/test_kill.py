"""A run killed at random moments, resumed each time, ends bit for bit where the run that was never killed ends."""

import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.fingerprint import fingerprints
from tests.offline import Robot, post_train_args
from tests.runs import Process

Args = Callable[..., list[str]]
Start = Callable[[list[str]], Process]

# Many saves and some evaluations, so that a random moment often falls inside one of them.
OPTIONS = {"data__capacity": 1024, "checkpoint__every": 2, "trainer__check_val_every_n_epoch": 20}
PATIENCE = 120


def partials(folder: Path) -> list[Path]:
    return list(folder.glob("**/.*.partial"))


def assert_loadable(folder: Path) -> None:
    """Every file that bears its final name is whole."""
    for checkpoint in folder.glob("checkpoints/*.ckpt"):
        torch.load(checkpoint, weights_only=True)
    for name, last_byte in (("config.yaml", b"\n"), ("curves.csv", b"\n"), ("curves.png", b"\x82")):
        if (folder / name).exists():
            assert (folder / name).read_bytes()[-1:] == last_byte


def kill(process: Process, folder: Path, chance: random.Random, in_a_save: bool) -> None:
    """Kill at a random moment of training; or soon, the moment a checkpoint is half-written."""
    process.wait_for_training(PATIENCE)
    time.sleep(chance.uniform(0, 0.2 if in_a_save else 1))
    if in_a_save:
        process.wait_for(lambda: partials(folder / "checkpoints"), PATIENCE, pause=0)
    process.signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert_loadable(folder)


MANY = pytest.param(20, marks=pytest.mark.campaign)


@pytest.mark.parametrize("workers", [1, pytest.param(0, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("kills", [1, MANY])
def test_killed_runs_end_where_the_whole_run_ends(
    kills: int, workers: int, start: Start, tiny: Args, tmp_path: Path
) -> None:
    options = OPTIONS | {"data__total_frames": 32 * (30 + 10 * kills), "data__collector__workers": workers}
    killed_equals_whole(lambda name: tiny(name, **options), kills, start, tmp_path, first_in_a_save=True)


@pytest.mark.parametrize("kills", [1, MANY])
def test_killed_runs_on_logs_end_where_the_whole_run_ends(
    kills: int, start: Start, robot: Robot, tmp_path: Path
) -> None:
    options = {"data__iterations": 100 + 10 * kills, "checkpoint__every": 2, "model__critic_warmup": 10}
    args = partial(post_train_args, robot=robot, **options)
    killed_equals_whole(lambda name: args(tmp_path / name), kills, start, tmp_path, first_in_a_save=False)


def killed_equals_whole(
    args: Callable[[str], list[str]], kills: int, start: Start, tmp_path: Path, first_in_a_save: bool
) -> None:
    """`args(name)` runs in the folder `name`; killed and resumed, it ends where it ends without."""
    whole = start(args("whole"))
    folder, last = tmp_path / "killed", tmp_path / "killed" / "checkpoints" / "last.ckpt"

    def begin() -> Process:
        return start([*args("killed"), *([f"--ckpt_path={last}"] if last.exists() else [])])

    chance, torn, scratch = random.Random(kills), 0, 0
    for number in range(kills):
        process = begin()
        kill(process, folder, chance, in_a_save=(number % 2 == 0) == first_in_a_save)
        torn += bool(partials(folder))
        scratch += not last.exists()
    process = begin()
    assert process.wait(PATIENCE + 60 * kills) == 0, process.output  # it grows with `kills`
    assert not partials(folder)
    assert_loadable(folder)
    print(f"{kills} kills: {torn} left a half-written file, {scratch} came before the first checkpoint")
    assert whole.wait(PATIENCE + 60 * kills) == 0, whole.output
    assert fingerprints(last) == fingerprints(tmp_path / "whole" / "checkpoints" / "last.ckpt")
