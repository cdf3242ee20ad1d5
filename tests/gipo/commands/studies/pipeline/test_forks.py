"""Functions in processes of their own: what they say is kept, a failure is told with it, and they end together."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import gymnasium
import pytest
import torch

from gipo.commands.studies.pipeline import forks
from gipo.commands.studies.pipeline.forks import ALONE, Forks
from gipo.commands.studies.pipeline.processes import side_by_side
from gipo.commands.studies.pipeline.versions import IN_FLOAT32, UNCOPIED
from gipo.common.errors import UserError
from tests.in_process import InThisProcess
from tests.runs import is_alive, outlives, within
from tests.tiny_env import TinyEnv

FIT = [  # iterations of 8 steps of each simulator
    f"--{option}"
    for option in (
        *ALONE, "seed_everything=1", "data.task=Breaks-v0", "data.collector.num_envs=2", "data.frames_per_iteration=16",
        "data.total_frames=96", "data.rounds=1", "data.batch=16", "data.evaluation.num_envs=2",
        "data.evaluation.episodes=2", "trainer.check_val_every_n_epoch=6", "model.policy=TokenPolicy",
        "model.policy.bins=8", "model.policy.network=gipo.networks.SeparateNetworks",
        "model.policy.network.hidden=[16]",
    )
]  # fmt: skip


def say(words: str, code: int) -> None:
    print(words)
    if code:
        raise UserError("there is no such thing")


def last(folder: Path) -> None:
    def save(signum: int, _: object) -> None:
        (folder / "saved").write_text(str(signum))

    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # as `gipo fit`, which then saves where it stands
        signal.signal(asked, save)
    (folder / "started").write_text(str(os.getpid()))
    time.sleep(300)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "IMPORTED", [])


def test_what_it_says_is_beside_its_folder(tmp_path: Path) -> None:
    Forks().run(tmp_path / "some" / "run-0.5", say, "hello", 0)
    assert (tmp_path / "some" / "run-0.5.txt").read_text() == "hello\n"


def test_a_failure_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)exit code 2; .*run.txt ends with:\nhello\n.*there is no such thing"):
        Forks().run(tmp_path / "run", say, "hello", 1)


def kill_itself(number: int) -> None:
    print("hello", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(300)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (
            signal.SIGKILL,
            r"SIGKILL, as a system without free memory ends what takes most; fewer --processes take less;",
        ),
        (signal.SIGSEGV, "SIGSEGV;"),
        (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1};"),
    ],
)
def test_a_run_that_a_signal_ended_is_told_so(number: int, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"(?s)^a run was ended by {says} .*run.txt ends with:\nhello$"):
        Forks().run(tmp_path / "run", kill_itself, number)


def test_a_run_computes_on_one_thread_unless_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        for given, threads in (("3", 2), (None, 1)):
            monkeypatch.setenv("OMP_NUM_THREADS", "3")
            if given is None:
                monkeypatch.delenv("OMP_NUM_THREADS")
            torch.set_num_threads(2)
            forks._have_one_core()
            assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (threads, given or "1")
    finally:
        torch.set_num_threads(before)


def test_a_fit_of_what_was_made_otherwise_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    runs, folder, options = InThisProcess(), tmp_path / "run", ["--model.init_from=clone.ckpt"]

    def fit(args: list[str]) -> None:
        made.append(args)
        (folder / "config.yaml").write_text("{}")

    monkeypatch.setattr("gipo.cli.main", fit)
    for _ in range(2):
        runs.fit(folder, options, ["--data.iterations=30"])
    assert made == [["fit", IN_FLOAT32, UNCOPIED, *options, f"--trainer.default_root_dir={folder}"]]
    with pytest.raises(UserError, match="run was made with other options; name another --out, or delete it and what"):
        runs.fit(folder, options, ["--data.iterations=60"])


def test_a_run_that_failed_is_made_again_from_where_it_saves_in_any_case(tmp_path: Path) -> None:
    """What a failure saves has other episodes after it than a run that did not fail."""
    breaks_at, never = [28], 10**9
    gymnasium.register("Breaks-v0", lambda: TinyEnv(bad_step=breaks_at[0]), max_episode_steps=12)
    try:
        with pytest.raises(SystemExit, match="2"):
            InThisProcess().fit(tmp_path / "again", FIT)
        breaks_at[0] = never  # what broke it is mended
        for name in ("again", "whole"):
            InThisProcess().fit(tmp_path / name, FIT)
    finally:
        del gymnasium.registry["Breaks-v0"]
    again, whole = ((tmp_path / name / "curves.csv").read_text() for name in ("again", "whole"))
    assert again == whole


def study(folder: Path) -> None:
    forks.IMPORTED = []
    Forks().run(folder / "run", last, folder)


def test_a_study_that_is_killed_leaves_no_run_behind(tmp_path: Path) -> None:
    assert not outlives(study, tmp_path, tmp_path / "started")
    assert not (tmp_path / "saved").exists(), "what goes on from there would be another run"


@pytest.mark.parametrize("asked", [False, True])
def test_all_end_together_and_none_begins_after(asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "PATIENCE", 1.0)
    some, told = Forks(asked=asked), []

    def wait() -> None:
        try:
            some.run(tmp_path / "run", last, tmp_path)
        except UserError as error:
            told.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    started = tmp_path / "started"
    assert within(60, lambda: started.exists() and started.read_text())
    some.end()
    thread.join(60)
    assert told == ["the study has ended"]
    assert (tmp_path / "saved").exists() == asked, "it hears of it, and is killed as it does not end"
    assert not is_alive(int(started.read_text()))
    with pytest.raises(UserError, match="the study has ended"):
        some.run(tmp_path / "other", say, "hello", 0)


def interrupted(folder: Path) -> None:
    os.setsid()  # as a shell has it: a group of its own
    forks.IMPORTED = []
    with side_by_side(runs := Forks(), 1) as pool:
        pool.submit(runs.run, folder / "run", last, folder).result()


def test_ctrl_c_is_heard_by_the_study_alone(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=interrupted, args=(tmp_path,))
    process.start()
    started = tmp_path / "started"
    assert within(60, lambda: started.exists() and started.read_text())
    os.killpg(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 1, "KeyboardInterrupt"
    assert within(60, lambda: not is_alive(int(started.read_text())))
    assert not (tmp_path / "saved").exists()
