"""How a run can end, what is on disk then, and its exit code: each row of the table in docs/train.md, for real."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from gipo.callbacks.reporting import CollectionMetrics
from gipo.commands.fit.cli import main as fit
from gipo.common import boundary
from gipo.module import GIPOModule
from tests.runs import Process
from tests.tiny_env import TinyEnv

Args = Callable[..., list[str]]
DOCUMENT = Path(__file__).parents[1] / "docs" / "train.md"
TABLE = {
    end: (held, int(code))
    for end, held, code in re.findall(r"^\| (.+?) \| (.+?) \| (\d+) \|$", DOCUMENT.read_text(), re.MULTILINE)
}
LENGTH, SAVED, EVENT = 8, 4, 6  # iterations: of a run, of its only save while it goes on, in which something happens
OPTIONS = {"data__task": "Tiny-v0", "data__total_frames": 32 * LENGTH, "checkpoint__every": SAVED}

pytestmark = pytest.mark.usefixtures("no_plot")


class Broken(Exception):
    """What a user's code raises."""


@dataclass
class Ending:
    """How a row is brought about.

    Args:
        options: of the run, beside `OPTIONS`.
        extra: arguments that follow.
        when: called at the beginning of every training step with its iteration, counted from 1.
        patch: puts a fault elsewhere.
    """

    options: dict[str, object] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    when: Callable[[int], object] = lambda iteration: None
    patch: Callable[[pytest.MonkeyPatch], object] = lambda patch: None


def at_event(*calls: Callable[[], object]) -> Callable[[int], None]:
    def when(iteration: int) -> None:
        if iteration == EVENT:
            for call in calls:
                call()

    return when


def give(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def fail(error: BaseException) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return failing


def in_the_simulator(error: BaseException, looked: int = 0) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(patch: pytest.MonkeyPatch) -> None:
        step, taken = TinyEnv.step, [0]

        def counting(self: TinyEnv, action: Any) -> Any:
            taken[0] += self.total > 0  # its first one was taken when it was made, to see whether it tells success
            # A worker has these and no others; in one process a new policy looks around before, which is fewer.
            if taken[0] > 32 * (EVENT - 1) + looked + 7:
                raise error
            return step(self, action)

        patch.setattr(TinyEnv, "step", counting)

    return patch


def in_a_callback(patch: pytest.MonkeyPatch) -> None:
    look = CollectionMetrics.on_train_batch_end

    def failing(self: Callback, trainer: Trainer, *arguments: Any) -> None:
        look(self, trainer, *arguments)  # type: ignore[arg-type]
        if trainer.current_epoch + 1 == EVENT:
            raise Broken("in a callback")

    patch.setattr(CollectionMetrics, "on_train_batch_end", failing)


def in_an_evaluation(patch: pytest.MonkeyPatch) -> None:
    step = TinyEnv.step

    def evaluated(self: Any) -> Any:
        patch.setattr(TinyEnv, "step", lambda env, action: (give(signal.SIGTERM)(), step(env, action))[1])
        return evaluate(self)

    evaluate = GIPOModule.on_validation_start
    patch.setattr(GIPOModule, "on_validation_start", evaluated)


def a_worker_dies(iteration: int) -> None:
    if iteration == EVENT - 1:
        os.kill(active_children()[0].pid or 0, signal.SIGKILL)


HERE = ", in this process"  # ends as in a worker
EARLY = ("EarlyStopping", "monitor=val/return", "mode=max", "min_delta=1000", "patience=1")
ENDINGS = {
    "its last iteration": Ending(),
    "`trainer.max_steps`": Ending({"trainer__max_steps": 4 * EVENT}),
    "`trainer.max_time`": Ending({"trainer__max_time": "00:00:00:01", "data__total_frames": 32 * 10_000}),
    "`EarlyStopping`": Ending(
        {"trainer__check_val_every_n_epoch": 3},
        (f"--trainer.callbacks+={EARLY[0]}", *(f"--trainer.callbacks.{option}" for option in EARLY[1:])),
    ),
    "Ctrl-C": Ending(when=at_event(give(signal.SIGINT))),
    "SIGTERM": Ending(when=at_event(give(signal.SIGTERM))),
    "SIGHUP": Ending(when=at_event(give(signal.SIGHUP))),
    "Ctrl-C twice": Ending(when=at_event(give(signal.SIGINT), give(signal.SIGINT))),
    "SIGTERM in an evaluation": Ending({"trainer__check_val_every_n_epoch": EVENT}, patch=in_an_evaluation),
    "SIGTERM before the first iteration": Ending(
        patch=lambda patch: patch.setattr(GIPOModule, "on_fit_start", lambda self: give(signal.SIGTERM)())
    ),
    "an exception in the simulator": Ending(patch=in_the_simulator(Broken("in the simulator"))),
    "an exception in the objective": Ending(when=at_event(fail(Broken("in the objective")))),
    "an exception in a callback": Ending(patch=in_a_callback),
    f"an exception in the simulator{HERE}": Ending(
        {"data__collector__workers": 0}, patch=in_the_simulator(Broken("in the simulator"), looked=32)
    ),
    "`sys.exit` in the simulator": Ending(patch=in_the_simulator(SystemExit(0))),
    f"`sys.exit` in the simulator{HERE}": Ending(
        {"data__collector__workers": 0}, patch=in_the_simulator(SystemExit(0), looked=32)
    ),
    "a worker that dies": Ending(
        # A task that a process of its own knows too.
        {
            "data__task": "Pendulum-v1",
            "data__collector__workers": 2,
            "data__collector__num_envs": 2,
            "data__collector__worker_timeout": 120,
        },
        when=a_worker_dies,
    ),
    "memory that runs out": Ending(when=at_event(fail(MemoryError()))),
}


def code_of(args: list[str]) -> int:
    """What the command's process would exit with."""
    try:
        return boundary.run("gipo", lambda given: fit(given), args)
    except SystemExit as ended:
        return int(ended.code or 0)


def run(ending: Ending, args: list[str]) -> int:
    step = GIPOModule.training_step

    def noting(self: GIPOModule, *arguments: Any) -> None:
        ending.when(self.current_epoch + 1)
        step(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GIPOModule, "training_step", noting)
        ending.patch(patch)
        return code_of([*args, *ending.extra])


def saved(folder: Path) -> int | None:
    """Iteration of the run's last checkpoint."""
    last = folder / "checkpoints" / "last.ckpt"
    if not last.exists():
        return None
    checkpoint = torch.load(last, weights_only=True)
    assert int(checkpoint["state_dict"]["policy.version"]) == checkpoint["OnlineDataModule"]["iteration"]
    return int(checkpoint["OnlineDataModule"]["iteration"])


def assert_held(held: str, found: int | None, done: int) -> None:
    expected = {
        "the end": done,
        "the end of the iteration": EVENT,
        "the end of the last whole iteration": EVENT - 1,
        "the last save, whole": SAVED,
        "nothing": None,
    }
    assert found == expected[held]


def assert_told(code: int, error: str, held: str) -> None:
    """One line says what ended the run and where it is; nothing is a traceback."""
    assert "Traceback" not in error
    if code == 0:
        return
    lines = [line for line in error.splitlines() if line.startswith(("gipo: ended by", "gipo: the run failed"))]
    assert len(lines) == 1, error
    if held != "nothing":
        assert "last.ckpt holds iteration" in lines[0]
    assert error.count("gipo: error:") == (code == 2)


DISKS = ("a disk that is full for a while", "a disk that is full until the end")


def test_every_way_to_end_is_tried() -> None:
    assert set(TABLE) == {*(end.removesuffix(HERE) for end in ENDINGS), *DISKS, "SIGKILL, power loss"}


@pytest.mark.parametrize("end", ENDINGS)
def test_a_run_ends_as_the_table_says(end: str, tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held, code = TABLE[end.removesuffix(HERE)]
    args = tiny(**OPTIONS | ENDINGS[end].options)
    assert run(ENDINGS[end], args) == code
    out, error = capsys.readouterr()
    found = saved(tmp_path / "run")
    done = re.search(r"(\d+) environment steps", out)
    assert_held(held, found, int(done[1]) // 32 if done else -1)
    assert_told(code, error, held)
    assert not list((tmp_path / "run").rglob("*.partial"))
    if end in ("`trainer.max_steps`", "`EarlyStopping`", "an exception in the simulator", "SIGTERM in an evaluation"):
        assert found is not None
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        assert code_of(tiny(**OPTIONS | {"ckpt_path": last})) == 0
        assert saved(tmp_path / "run") == LENGTH
    if end in ("`trainer.max_steps`", "`trainer.max_time`", "`EarlyStopping`"):
        assert f"stopped by {end.strip('`')}" in out


def test_fewer_iterations_than_the_data_give_are_no_end(tiny: Args, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(tiny(data__task="Tiny-v0", trainer__max_epochs=2)) == 0
    assert "stopped by trainer.max_epochs=2: 64 environment steps of 128" in capsys.readouterr().out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"may not mount a disk here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("end", DISKS)
def test_a_full_disk_ends_no_training(end: str, disk: Path, tiny: Args, capsys: pytest.CaptureFixture[str]) -> None:
    held, code = TABLE[end]
    filler = disk / "filler"

    def when(iteration: int) -> None:
        if iteration == SAVED + 1:
            with suppress(OSError), open(filler, "wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        elif iteration == LENGTH and end == "a disk that is full for a while":
            filler.unlink()

    options = OPTIONS | {"data__total_frames": 32 * (LENGTH + 1), "checkpoint__every": 2, "checkpoint__copy_gib": 1}
    options |= {"trainer__check_val_every_n_epoch": 3}
    args = [arg for arg in tiny(**options) if "default_root_dir" not in arg]
    assert run(Ending(when=when), [*args, f"--trainer.default_root_dir={disk}/run"]) == code
    error = capsys.readouterr().err
    assert_held(held, saved(disk / "run"), LENGTH + 1)
    assert "Traceback" not in error
    last = f"{disk}/run/checkpoints/last.ckpt: No space left on device"
    assert last in error
    if code:
        assert error.count("gipo: error:") == 1
        assert f"holds iteration {SAVED}; what iterations {SAVED + 1} to {LENGTH + 1} learned is lost" in error
        assert "the run failed" not in error, "all its iterations were made"
    else:
        rows = (disk / "run" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
        assert len(rows) > LENGTH  # none is missing
    assert not list(disk.rglob("*.partial"))


def test_a_killed_run_keeps_its_last_save(tiny: Args, tmp_path: Path, start: Callable[[list[str]], Process]) -> None:
    held, code = TABLE["SIGKILL, power loss"]
    process = start(tiny(**OPTIONS | {"data__total_frames": 32 * 10_000, "checkpoint__every": 10}))
    process.wait_for((tmp_path / "run" / "checkpoints" / "last.ckpt").exists, 120)
    process.signal(signal.SIGKILL)
    assert 128 - process.wait(20) == code
    assert held == "the last save, whole"
    found = saved(tmp_path / "run")
    assert found is not None
    assert found % 10 == 0
