"""`gipo-demos`: help that teaches, bad input in one line, one data set whoever demonstrates, read as any log is."""

from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
import tomllib

from datamodules.ingest import IngestOptions, ingest
from gipo.commands import demos
from gipo.commands.demos import main
from robots.review.export_minari import datasets_path
from tests import tiny_env
from tests.offline import make_robot
from tests.pages import ROOT

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_env.register()
    (tmp_path / "homing_script.py").write_text("def home(observation):\n    return -3 * observation[:2]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_it_is_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["gipo-demos"] == "gipo.cli:demos"


def test_help_teaches(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    words = capsys.readouterr().out
    assert "gipo-demos --task reach-v3 --out demonstrations" in words
    assert "gipo fit --config bc.yaml --data.logs=demonstrations" in words
    assert "logs of gipo-robot" in words


def test_demonstrations_are_a_dataset_that_says_how_they_were_made(tmp_path: Path, capsys: Capture) -> None:
    args = ["--task=reach-v3", "--out=d", "--episodes=2", "--seed=3", "--after=1", "--simulator=python"]
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "d/gipo/reach-v3: 2 demonstrations of reach-v3" in said
    assert "noise 0.2, seed 3, python simulator; 2 of 2 attempts succeeded: 1.00 [0.34, 1.00]" in said
    with datasets_path(Path("d")):
        dataset = minari.load_dataset("gipo/reach-v3")
    assert dataset.total_episodes == 2
    assert "2 of 2 attempts succeeded" in dataset.storage.metadata["description"]
    store = ingest([Path("d")], IngestOptions(cache=tmp_path / "cache", workers=1))
    assert (store.facts.episodes, store.facts.successes) == (2, 2)
    assert store.frames["valid"].all()
    assert store.frames["next", "truncated"].sum() == 2
    assert store.frames["next", "reward"].max() > 1

    assert main(args) == 2
    assert "d/gipo/reach-v3 exists; name another --out" in capsys.readouterr().err


def test_failures_are_counted_and_kept_when_asked(capsys: Capture) -> None:
    # Three steps are too few to reach anything.
    few = ["--task=reach-v3", "--max-steps=3", "--simulator=python", "--episodes=2"]
    assert main([*few, "--out=all", "--failures"]) == 0
    assert "0 of 2 attempts succeeded: 0.00 [0.00, 0.66]" in capsys.readouterr().out
    assert main([*few, "--out=none"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert main([*few, "--episodes=21", "--out=many", "--failures"]) == 0, "they do not run out"
    assert "the script failed 20 times in a row at reach-v3; lower --noise, or name another --task" in error
    assert not Path("none").exists()


def test_anybodys_script_for_any_task_and_a_robots_logs_are_read_together(tmp_path: Path, capsys: Capture) -> None:
    assert main(["--task=Tiny-v0", "--script=homing_script.home", "--out=d", "--episodes=3", "--noise=0.1"]) == 0
    said = capsys.readouterr()
    assert "3 attempts, of which the task does not say whether they succeeded" in said.out
    assert "succeeded" not in said.err, "nor does the bar"
    robot = make_robot(tmp_path / "robot", steps=(5,))
    options = IngestOptions(cache=tmp_path / "cache", workers=1, policies=robot.folder)
    store = ingest([tmp_path / "d", *robot.logs], options)
    with h5py.File("d/gipo/Tiny-v0/data/main_data.hdf5") as file:
        scripted = sum(len(file[f"episode_{index}"]["actions"]) for index in range(3))
    assert store.facts.episodes == 5
    assert store.facts.steps == len(store.frames["action"]) >= scripted + 2 * 4
    assert np.isfinite(store.frames["action"]).all()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--task=reach-v3", "--episodes=0"], "no whole number from 1 to"),
        (["--task=reach-v3", "--noise=-1"], "no number from 0 to"),
        (["--task=libero_goal"], "libero_goal has 10 tasks; name one, such as libero_goal/0"),
        (
            ["--task=Endless-v0", "--script=homing_script.home"],
            "has no time limit, so that an attempt may never end; set",
        ),
        (["--task=reach-v3", "--file=demo.hdf5"], "--file is for LIBERO's tasks, and reach-v3 is none"),
        (
            ["--task=libero_goal/0", "--file=d.hdf5", "--noise=0.1"],
            "--noise is of attempts of a script, and --file has",
        ),
        (["--task=libero_goal/0", "--file=d.hdf5", "--max-steps=9"], "--max-steps is of attempts of a script"),
        (["--task=Tiny-v0"], "name a class or function of yours with --script"),
        (["--task=raech-v3"], "unknown task 'raech-v3'"),
    ],
)
def test_bad_input_is_one_line(args: list[str], words: str, capsys: Capture) -> None:
    assert demos.main([*args, "--out=demos"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.splitlines()[-1].startswith("gipo-demos: error: ")
    assert not Path("demos").exists()
