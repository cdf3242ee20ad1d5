"""Options that studies share: what would make two runs one, or undo what is compared, is refused."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from gipo.cli import main as gipo
from gipo.commands.studies import cli
from gipo.commands.studies.fifty.entrants import OURS
from gipo.commands.studies.options import objective_flags
from gipo.commands.studies.recipe.candidates import FACTORS


def test_as_many_runs_side_by_side_as_there_are_cores_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 4}, raising=False)  # of however many
    assert cli.build_parser("loop").parse_args(["loop"]).processes == 3


@pytest.mark.parametrize("study", ["loop", "posttrain", "people"])
def test_a_seed_that_is_named_twice_is_refused(study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([study, "--seeds", "1", "1", "--out", str(tmp_path)])
    assert "--seeds names a value twice: 1 1" in capsys.readouterr().err


def test_coefficients_that_tables_call_the_same_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["people", "--coefs", "1", "1.0000001", "--out", str(tmp_path)])
    assert "--coefs: the tables call two of these the same: 1.0 1.0000001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "option"),
    [
        ("loop", ["--train", "data.total_frames=1"]),
        ("loop", ["--post", "model.init_from=other.ckpt"]),
        ("posttrain", ["--post", "model.objective=SAPO"]),
        ("loop", ["--train", "data.total_fr=1"]),  # as jsonargparse takes it
        ("people", ["--train", "seed_everything=1"]),
        ("people", ["--train", "seed=1"]),
        ("people", ["--post", "model.human_coef=1"]),
        ("fifty", ["--train", "trainer.max_steps=100"]),  # a short run would count as a whole one
        ("recipe", ["--train", "trainer.max_epochs=3"]),
        ("demonstrations", ["--post", "trainer.max_time=00:00:01:00"]),
    ],
)
def test_what_a_study_compares_cannot_be_handed_on(
    study: str, option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([study, *option, "--out", str(tmp_path)])
    assert f"{' '.join(option)}: the study itself sets {option[1].partition('=')[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "task"), [("posttrain", "camera:reach-v3"), ("people", "camera:reach-v3"), ("people", "toy")]
)
def test_a_task_that_a_study_cannot_be_of_is_refused_before_anything_is_trained(
    study: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([study, "--task", task, "--out", str(tmp_path / "out"), "--loops", str(tmp_path / "loops")])
    assert f"--task {task}: this study has no policies that see in that way" in capsys.readouterr().err
    assert not (tmp_path / "loops").exists()
    with pytest.raises(SystemExit, match="0"):
        cli.main([study, "--help"])
    assert task.partition("reach")[0] not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("study", "options", "said"),
    [
        ("loop", ["--task", "raech-v3"], "--task raech-v3: unknown task 'raech-v3'"),
        ("people", ["--task", "raech-v3"], "--task raech-v3: unknown task 'raech-v3'"),
        ("posttrain", ["--task", "raech-v3"], "--task raech-v3: unknown task 'raech-v3'"),
        ("demonstrations", ["--tasks", "reach-v3", "../x"], "--tasks ../x: unknown task '../x'"),
        ("staleness", ["--tasks", "raech-v3"], "--tasks raech-v3: unknown task 'raech-v3'"),
        ("people", ["--operator", "nosuch=1"], "--operator nosuch is no setting of "),
        ("people", ["--operator", "patience=long"], "--operator patience"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_before_the_first(
    study: str, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([study, *options, "--out", str(tmp_path / "out")])
    assert said in capsys.readouterr().err
    assert not any((tmp_path / "out").iterdir())


def objective(options: Sequence[str]) -> dict[str, Any]:
    """Options of the objective of `gipo fit` with these options."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit, match="0"):
        gipo(["fit", *options, "--print_config"])
    found: dict[str, Any] = yaml.safe_load(said.getvalue())["model"]["objective"]["init_args"]
    return found


def outward_only(options: Sequence[str]) -> bool:
    """Whether it damps only what leads further away."""
    found: bool = objective(options)["outward_only"]
    return found


def test_the_fifty_and_the_race_have_the_objective_that_was_raced_whatever_the_default_has_become() -> None:
    for options in (OURS["AgeAwareGIPO"], FACTORS["objective"]["age, outward"]):
        found = objective([f"--{each}" for each in options])
        assert (found["sigma_fresh"], found["outward_only"]) == (0.3, True)
    assert objective([])["sigma_fresh"] == 0.1


def test_an_objective_has_the_options_that_are_given_and_no_others_of_the_recipe() -> None:
    assert outward_only([])  # so that the class alone would keep it
    assert not outward_only(objective_flags("AgeAwareGIPO"))
    assert outward_only(objective_flags("AgeAwareGIPO:outward_only=true"))
    levels = {name: [f"--{each}" for each in FACTORS["objective"][name]] for name in ("age", "age, outward")}
    assert not outward_only(levels["age"])
    assert outward_only(levels["age, outward"])
