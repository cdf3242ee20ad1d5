"""Runs of a study are of one version: a default that changed between two of them is found, what options say is not."""

from pathlib import Path

import pytest
import yaml

from gipo.commands.studies.pipeline.versions import OneVersion, OtherVersion, settings
from gipo.common.errors import UserError

GIPO = {"class_path": "gipo.objectives.GIPO", "init_args": {"sigma": 1.0}}


def made(folder: Path, **changes: object) -> Path:
    found = {"seed_everything": 0, "model": {"objective": GIPO, "kl_coef": 0.1}, "data": {"rounds": 32, "batch": [8]}}
    found["data"] |= {key: value for key, value in changes.items() if key in ("rounds", "simulator", "task", "added")}
    found["model"] |= {key: value for key, value in changes.items() if key in ("kl_coef", "objective")}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(found))
    return folder


def test_settings_are_named_as_their_options_are(tmp_path: Path) -> None:
    assert settings(made(tmp_path / "a")) == {
        "seed_everything": 0, "model.objective": "gipo.objectives.GIPO", "model.objective.sigma": 1.0,
        "model.kl_coef": 0.1, "data.rounds": 32, "data.batch": [8],
    }  # fmt: skip


def test_a_default_that_changed_is_found(tmp_path: Path) -> None:
    version = OneVersion()
    version.add(made(tmp_path / "a", task="reach-v3"), ["--data.task=reach-v3"])
    version.add(made(tmp_path / "b", task="push-v3"), ["--data.task=push-v3"])
    with pytest.raises(OtherVersion, match=r"/c has data.rounds 16, .*/a has 32, and no option of the study says so"):
        version.add(made(tmp_path / "c", rounds=16, task="push-v3"), ["--data.task=push-v3"])


def test_what_options_say_may_differ(tmp_path: Path) -> None:
    version = OneVersion()
    version.add(made(tmp_path / "a"), [])
    version.add(made(tmp_path / "b", rounds=16), ["--data.rounds=16"])
    version.add(made(tmp_path / "c", rounds=8), ["--config=other.yaml"])
    version.add(
        made(tmp_path / "d", simulator="envpool", task="reach-v3"), ["--data.task=reach-v3"]
    )  # which a run takes by its task
    version.add(made(tmp_path / "e", simulator="python", task="push-v3"), ["--data.task=push-v3"])
    version.add(made(tmp_path / "f", added=True), [])  # a newer version has more settings


def test_a_study_goes_on_whose_runs_would_have_saved_where_they_failed(tmp_path: Path) -> None:
    version, folders = OneVersion(), [made(tmp_path / name) for name in "ab"]
    for folder, copy in zip(folders, (1.0, 0.0), strict=True):
        with open(folder / "config.yaml", "a") as file:
            yaml.safe_dump({"checkpoint": {"copy_gib": copy}}, file)
        version.add(folder, [])


@pytest.mark.parametrize("said", [[], ["--data.task=reach-v3"]])
def test_one_task_in_two_simulators_is_found(said: list[str], tmp_path: Path) -> None:
    """As where EnvPool was installed between two runs: equal seeds draw other goals in the two."""
    version = OneVersion()
    version.add(made(tmp_path / "a", simulator="python", task="reach-v3"), said)
    version.add(made(tmp_path / "b", simulator="envpool", task="reach-v3"), [*said, "--data.simulator=envpool"])
    with pytest.raises(
        OtherVersion, match=r"/c has data.simulator envpool, .*/a has python, .*simulators are installed"
    ):
        version.add(made(tmp_path / "c", simulator="envpool", task="reach-v3"), said)


def test_the_same_words_must_mean_the_same(tmp_path: Path) -> None:
    version = OneVersion()
    wide = {"class_path": "gipo.objectives.GIPO", "init_args": {"sigma": 2.0}}
    version.add(made(tmp_path / "a", objective=GIPO), ["--model.objective=GIPO"])
    version.add(made(tmp_path / "b", objective=wide), ["--model.objective=GIPO", "--model.objective.sigma=2"])
    with pytest.raises(OtherVersion, match=r"/c has model.objective.sigma 2.0, .*/a has 1.0"):
        version.add(made(tmp_path / "c", objective=wide), ["--model.objective=GIPO"])


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", None])
def test_what_is_no_configuration_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config.yaml (cannot be read: |is not the configuration of a run; delete )"):
        OneVersion().add(tmp_path, [])
