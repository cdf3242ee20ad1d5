"""A stage is run once, goes on where it was interrupted, and touches nothing that it did not make."""

import json
from pathlib import Path

import pytest

from gipo.commands.studies.pipeline.forks import FIT
from gipo.commands.studies.pipeline.once import is_done
from gipo.commands.studies.pipeline.processes import Commands
from gipo.commands.studies.pipeline.stages import Stages
from gipo.commands.studies.pipeline.versions import IN_FLOAT32
from gipo.common.errors import UserError
from tests.in_process import Calls, written_down

OPTIONS = ["--data.total_frames=9"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What would have been run."""
    found: Calls = []
    monkeypatch.setattr(Commands, "run", written_down(found))
    return found


def interrupted(folder: Path, *, saved: bool) -> None:
    """What a killed `fit` leaves."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "fit.started.json").write_text(json.dumps(OPTIONS))
    (folder / "checkpoints" / ("last.ckpt" if saved else "best.ckpt")).write_text("")


def test_a_fit_is_run_once(tmp_path: Path, calls: Calls) -> None:
    folder = tmp_path / "run"
    for _ in range(2):
        assert Stages({}).fit(folder, OPTIONS) == folder / "checkpoints"
    assert calls == [("gipo", ["fit", IN_FLOAT32, *OPTIONS, f"--trainer.default_root_dir={folder}"])]
    assert is_done(folder, FIT)


def test_an_interrupted_fit_goes_on_from_its_checkpoint(tmp_path: Path, calls: Calls) -> None:
    interrupted(tmp_path, saved=True)
    Stages({}).fit(tmp_path, OPTIONS)
    assert calls[0][1][1:4] == ["--config", f"{tmp_path}/config.yaml", f"--ckpt_path={tmp_path}/checkpoints/last.ckpt"]
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_fit_that_had_saved_nothing_to_resume_from_begins_again(tmp_path: Path, calls: Calls) -> None:
    interrupted(tmp_path, saved=False)
    Stages({}).fit(tmp_path, OPTIONS)
    assert calls[0][1][1:-1] == [IN_FLOAT32, *OPTIONS]
    assert not (tmp_path / "checkpoints").exists()  # `gipo fit` would refuse a folder that holds one


@pytest.mark.parametrize("marker", ["started", "done"])
def test_a_fit_with_other_options_is_refused(marker: str, tmp_path: Path, calls: Calls) -> None:
    interrupted(tmp_path, saved=True)
    (tmp_path / "fit.started.json").rename(tmp_path / f"fit.{marker}.json")
    with pytest.raises(UserError, match="other options"):
        Stages({}).fit(tmp_path, ["--data.total_frames=10"])
    assert calls == []


def test_files_of_others_are_never_cleared_away(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="files not of this study"):
        Stages({}).fit(tmp_path, OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert calls == []


def test_a_run_of_others_is_not_gone_on_with(tmp_path: Path, calls: Calls) -> None:
    interrupted(tmp_path, saved=True)
    (tmp_path / "fit.started.json").unlink()
    with pytest.raises(UserError, match="files not of this study"):
        Stages({}).fit(tmp_path, OPTIONS)
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    assert calls == []


def test_a_failed_fit_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ended with exit code 2; .*fit\.txt ends with:\n"):
        Stages({}).fit(tmp_path / "run", ["--data.nonsense=1"])
    assert not is_done(tmp_path / "run", FIT)
    assert "nonsense" in (tmp_path / "run" / "fit.txt").read_text()
