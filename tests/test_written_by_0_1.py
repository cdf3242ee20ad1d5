"""What version 0.1 wrote goes on working: a configuration, a checkpoint, an artifact, a log, and names in a script."""

import importlib
import pkgutil
import re
import runpy
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

from datamodules.ingest import IngestOptions, ingest
from deploy.policy import OnnxPolicy
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.common import moved
from gipo.common.errors import UserError
from robots.log import read_log
from robots.review.audit import audit

FILES = Path(__file__).parent / "data" / "written_by_0.1"
TINY = ["--data.rounds=1", "--data.batch=32", "--data.evaluation.episodes=1", "--data.evaluation.num_envs=1"]


@pytest.mark.parametrize("name", ["run.yaml", "vla.yaml", "config.yaml"])
def test_a_configuration_is_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(FILES / name), "--print_config"])
    assert not end.value.code
    printed = capsys.readouterr().out
    named = [line.split()[-1] for line in (FILES / name).read_text().splitlines() if "class_path:" in line]
    assert named
    assert all(f"class_path: {class_path}" in printed for class_path in named)


@pytest.mark.parametrize(
    ("option", "old", "new"),
    [
        ("logger", "gipo.loggers.CSV", "gipo.callbacks.loggers.CSV"),
        ("logger", "gipo.loggers.TensorBoard", "gipo.callbacks.loggers.TensorBoard"),
        ("callbacks", "gipo.callbacks.Curves", "gipo.callbacks.reporting.Curves"),
        ("callbacks", "gipo.ending.LastCheckpoint", "gipo.callbacks.last_checkpoint.LastCheckpoint"),
        ("callbacks", "gipo.together.EndTogether", "gipo.distributed.failure.EndTogether"),
    ],
)
def test_what_a_user_had_added_to_a_run_is_found(
    option: str, old: str, new: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--trainer.logger=CSV` stands in the configuration of its run by the class path it had then."""
    config = tmp_path / "config.yaml"
    config.write_text(f"trainer:\n  {option}:\n  - class_path: {old}\n")
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(config), "--print_config"])
    assert not end.value.code
    assert f"class_path: {old}" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert pkgutil.resolve_name(old) is pkgutil.resolve_name(new)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    arguments = ["fit", "--config", str(FILES / "run.yaml"), "--data.total_frames=1200", *TINY]
    main([*arguments, f"--trainer.default_root_dir={tmp_path}", f"--ckpt_path={FILES / 'last.ckpt'}"])
    assert policy_from(load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")).version == 3


def test_post_training_on_the_same_log_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("last.ckpt", "policy.onnx", "log.mcap"):
        shutil.copy(FILES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ["--data.logs=log.mcap", "--model.init_from=last.ckpt", "--data.min_ess=0", "--model.critic_warmup=1"]
    tiny = ["--data.iterations=3", "--data.rounds=1", "--data.batch=16", "--trainer.default_root_dir=run"]
    main(["fit", "--config", "post_train.yaml", *options, *tiny, f"--ckpt_path={FILES / 'post_trained.ckpt'}"])
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["OfflineDataModule"]["iteration"] == 3


def test_checkpoint_artifact_and_log_say_the_same_of_an_action() -> None:
    policy = policy_from(load_checkpoint(FILES / "last.ckpt"))
    log = read_log(FILES / "log.mcap")
    assert [len(episode) for episode in log.episodes] == [30, 30]
    for episode in log.episodes:
        params = policy.params(torch.as_tensor(episode["observation"]))
        log_prob = policy.log_prob(params, torch.as_tensor(episode["latent"]))
        torch.testing.assert_close(log_prob, torch.as_tensor(episode["log_prob"]), atol=1e-5, rtol=1e-5)
    artifact = OnnxPolicy.load(FILES / "policy.onnx")
    found = audit([FILES / "log.mcap"], {artifact.policy_id: artifact})
    found.check()
    assert found.steps == {(artifact.policy_id, 2): 60}


def test_a_log_is_ingested(tmp_path: Path) -> None:
    store = ingest(FILES / "log.mcap", IngestOptions(cache=tmp_path, workers=1), progress=False)
    assert len(store.frames) == 60


@pytest.mark.parametrize("old", sorted(moved.MOVED))
def test_an_old_name_is_the_same_module(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=re.escape(f"{old} is {moved.MOVED[old]} now")):
        named = importlib.import_module(old)
    assert named is importlib.import_module(moved.MOVED[old])
    assert named.__spec__.name == moved.MOVED[old]


def test_a_module_inside_of_a_package_that_moved_is_found_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from datamodules.envs.libero import tasks
        from datamodules.libero.tasks import find  # type: ignore[import-not-found]

        assert find is tasks.find
        with pytest.raises(SystemExit):
            runpy.run_module("gipo.studies.cli", run_name="__main__", alter_sys=True)
    assert "gipo-study" in capsys.readouterr().err


def test_the_errors_of_an_artifact_and_of_gipo_are_caught_by_their_old_names() -> None:
    for module, name in (("deploy.errors", "ArtifactError"), ("gipo.errors", "GipoError")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert getattr(importlib.import_module(module), name) is UserError


def test_a_name_that_never_was_is_no_module() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'datamodules\.nothing'"):
        importlib.import_module("datamodules.nothing")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("datamodules.libero.nothing")
