"""The configuration in a run's folder: what it is, and what is said of a run that goes on with another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gipo.callbacks.kept_config import differences
from gipo.checkpoints import load_checkpoint, policy_from
from gipo.cli import main
from gipo.commands.fit.parser import FitParser

Args = Callable[..., list[str]]
SHORT = {"data__task": "Tiny-v0", "data__total_frames": 64}
GIPO = {"class_path": "gipo.objectives.GIPO", "init_args": {"sigma": 1.0, "log_ratio_bound": 5.0}}
CLIP = {"class_path": "gipo.objectives.PPOClip", "init_args": {"clip": 0.2, "log_ratio_bound": 4.0}}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"model": {"kl_coef": 0.1}}, {"model": {"kl_coef": 0.1}}, []),
        ({"model": {"kl_coef": 0.1}}, {"model": {"kl_coef": 0}}, ["model.kl_coef: 0.1 → 0"]),
        ({"model": {"objective": GIPO}}, {"model": {"objective": CLIP}}, ["model.objective: GIPO → PPOClip"]),
        (
            {"model": {"objective": GIPO}},
            {"model": {"objective": GIPO | {"init_args": {"sigma": 2.0, "added": 1}}}},
            ["model.objective.sigma: 1.0 → 2.0"],
        ),
        ({"model": {"policy": None}}, {"model": {"policy": GIPO}}, ["model.policy: None → GIPO"]),
        ({"data": {"total_frames": 64, "iterations": 1}}, {"data": {"total_frames": 96, "iterations": 2}}, []),
        ({"data": {"logs": ["a"]}, "seed": 1}, {"data": {"logs": ["b"]}, "more": 1}, ["data.logs: ['a'] → ['b']"]),
        ({}, {"seed_everything": 1}, []),
    ],
)
def test_what_two_configurations_have_otherwise(before: Any, after: Any, said: list[str]) -> None:
    assert [*differences(before, after)] == said


def test_what_one_file_of_the_same_version_has_not_is_null() -> None:
    before = {"model": {"kl_target": 0.02, "objective": GIPO}, "data": {"total_frames": 64}}
    after = {"model": {"objective": GIPO | {"init_args": {**GIPO["init_args"], "age": 0.5}}}, "data": {"iterations": 2}}
    assert [*differences(before, after, whole=True)] == [
        "model.kl_target: 0.02 → None", "model.objective.age: None → 0.5",
    ]  # fmt: skip
    assert [*differences(before, after)] == []


@pytest.mark.usefixtures("no_plot")
def test_it_is_written_as_if_it_were_validated_once_more(tiny: Args, monkeypatch: pytest.MonkeyPatch) -> None:
    written, ours = [], FitParser.dump

    def both(parser: FitParser, *args: Any, **options: Any) -> str:
        written.append([ours(parser, *args, **options | {"skip_validation": skip}) for skip in (True, False)])
        return ours(parser, *args, **options)

    monkeypatch.setattr(FitParser, "dump", both)
    objective = {"model__objective": "AgeAwareGIPO", "model__objective__sigma_fresh": 0.2}
    main(tiny(**SHORT, **objective, trainer__callbacks="Timer", trainer__callbacks__duration="00:01:00:00"))
    assert [one for one, _ in written] == [other for _, other in written]
    assert any("sigma_fresh: 0.2" in one and "Timer" in one for one, _ in written)


@pytest.mark.usefixtures("no_plot")
def test_an_anchor_whose_weight_moves_goes_on_and_one_that_is_left_out_is_told(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tiny(**SHORT, model__kl_target=0.02, model__kl_coef=1))
    assert (tmp_path / "run" / "config.yaml").read_text().startswith("# gipo ")
    capsys.readouterr()
    resume = {"ckpt_path": tmp_path / "run" / "checkpoints" / "last.ckpt", **SHORT}
    main(tiny(**resume | {"data__total_frames": 96}, model__kl_target=0.02, model__kl_coef=50))
    assert "goes on with other options" not in capsys.readouterr().err
    main(tiny(**resume | {"data__total_frames": 128}, model__kl_coef=50, data__collector__max_steps=3))
    said = capsys.readouterr().err
    assert "config-1.yaml has: model.kl_target: 0.02 → None; data.collector.max_steps: None → 3" in said


@pytest.mark.usefixtures("no_plot")
def test_a_run_that_goes_on_with_other_options_says_so_and_keeps_the_old_ones(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was forgotten is not lost, nor is one objective taken for another."""
    folder = tmp_path / "run"
    main(tiny(**SHORT, model__objective="PPOClip", data__estimator="datamodules.advantages.VTrace"))
    began = (folder / "config.yaml").read_text()
    resume = {"ckpt_path": folder / "checkpoints" / "last.ckpt"}
    main([*tiny(**resume, data__total_frames=96), f"--config={folder}/config.yaml"])  # last, and yet no longer
    assert "goes on with other options" not in capsys.readouterr().err
    assert not (folder / "config-1.yaml").exists()
    main(tiny(**resume, **SHORT | {"data__total_frames": 128}))
    line = next(line for line in capsys.readouterr().err.splitlines() if "goes on with other options" in line)
    assert line.startswith("gipo: note: the run goes on with other options than ")
    assert "config-1.yaml has: " in line
    assert "model.objective: PPOClip → AgeAwareGIPO" in line
    assert "data.estimator: VTrace → GAE" in line
    assert "total_frames" not in line
    main(tiny("elsewhere", **resume, **SHORT | {"data__total_frames": 160, "model__objective": "SAPO"}))
    line = next(line for line in capsys.readouterr().err.splitlines() if "goes on with other options" in line)
    assert f"{folder.name}/config.yaml has: " in line
    assert "model.objective: AgeAwareGIPO → SAPO" in line
    assert not (tmp_path / "elsewhere" / "config-1.yaml").exists()
    kept, now = (yaml.safe_load((folder / name).read_text()) for name in ("config-1.yaml", "config.yaml"))
    assert kept["model"] == yaml.safe_load(began)["model"]
    assert now["model"]["objective"]["class_path"].endswith("AgeAwareGIPO")
    main(tiny(**resume, **SHORT | {"data__total_frames": 160, "model__kl_coef": 0.25}))
    assert "config-2.yaml has: model.kl_coef: 0.1 → 0.25" in capsys.readouterr().err


@pytest.mark.usefixtures("no_plot")
def test_what_a_run_has_from_its_checkpoint_is_not_said_to_be_changed(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(tiny("first", **SHORT))
    began = tmp_path / "first" / "checkpoints" / "last.ckpt"
    main(tiny(**SHORT, model__init_from=began, model__value_scale="PopArt"))
    resume = {"ckpt_path": tmp_path / "run" / "checkpoints" / "last.ckpt", **SHORT | {"data__total_frames": 96}}
    capsys.readouterr()
    main(tiny(**resume, model__init_from=tmp_path / "gone.ckpt", model__policy__observation_floor=0.5))
    said = capsys.readouterr().err
    assert "goes on with other options" not in said
    line = next(line for line in said.splitlines() if "the checkpoint's stays" in line)
    assert line.endswith(f"model.policy.observation_floor: 0.01 → 0.5; model.init_from: {began} → {tmp_path}/gone.ckpt")
    resumed = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert policy_from(resumed).normaliser.floor.max() <= 0.011  # type: ignore[union-attr]


@pytest.mark.usefixtures("no_plot")
def test_options_that_stood_in_a_file_of_their_own_are_kept_in_one(tiny: Args, tmp_path: Path) -> None:
    (tmp_path / "objective.yaml").write_text("class_path: SAPO\ninit_args:\n  tau_neg: 2\n")
    main(tiny(**SHORT, model__objective=tmp_path / "objective.yaml"))
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["objective"]
    assert (kept["class_path"], kept["init_args"]["tau_neg"]) == ("gipo.objectives.SAPO", 2.0)
    assert not (tmp_path / "run" / "objective.yaml").exists()
