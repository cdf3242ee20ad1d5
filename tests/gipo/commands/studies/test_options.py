"""Options that studies share: what would make two runs one, or undo what is compared, is refused."""

from pathlib import Path

import pytest

from gipo.commands.studies import cli


@pytest.mark.parametrize("study", ["loop", "posttrain", "people"])
def test_a_seed_that_is_named_twice_is_refused(study: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([study, "--seeds", "1", "1", "--out", str(tmp_path)])
    assert "--seeds names a value twice: 1 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("study", "option"),
    [
        ("loop", ["--train", "data.total_frames=1"]),
        ("loop", ["--post", "model.init_from=other.ckpt"]),
        ("posttrain", ["--post", "model.objective=SAPO"]),
        ("people", ["--train", "seed_everything=1"]),
        ("people", ["--post", "model.human_coef=1"]),
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
