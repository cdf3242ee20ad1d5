"""The command line: every shipped configuration runs and resumes, --help teaches every field, files end up in place."""

import csv
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from datamodules.advantages import GAE, VTrace
from datamodules.ingest import IngestOptions
from datamodules.options import CollectorOptions, EvaluationOptions
from datamodules.replay.behaviour import BehaviourOptions
from gipo.baselines import ASPO, CISPO, ESPO
from gipo.callbacks.last_checkpoint import LastCheckpoint
from gipo.cli import main
from gipo.commands.fit.arguments import DATA_MODULES, shipped_configs
from gipo.common.checkpoint_head import read_head
from gipo.module import GIPOModule
from gipo.objectives import GIPO, SAPO, PPOClip
from gipo.policies import GaussianPolicy, TokenPolicy
from tests.offline import Robot, fit_args
from tests.runs import living, within

Args = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]


def shrunk(config: str, folder: Path, iterations: int) -> list[str]:
    """Arguments that run `iterations` iterations of a shipped configuration on a small problem."""
    shipped = yaml.safe_load(shipped_configs()[config].read_text())
    simulators = min(4, shipped.get("data", {}).get("collector", {}).get("num_envs", 4))
    if config == "libero.yaml":
        simulators = 1  # each loads a scene of its own
    frames = simulators * 4
    small = {
        "config": config,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": folder,
        "data.collector.num_envs": simulators,
        "data.frames_per_iteration": frames,
        "data.total_frames": iterations * frames,
        "data.warmup_frames": 0,
        "data.capacity": 8 * frames,
        "data.rounds": 1,
        "data.batch": 16,
        "data.evaluation.num_envs": 1,
        "data.evaluation.episodes": 1,
        "data.evaluation.test_episodes": 1,
        "checkpoint.every": 1,
    }
    if list(shipped) == ["model"] and list(shipped["model"]) == ["objective"]:
        small["data.collector.workers"] = 0  # whatever the objective is, a worker does the same: others have one
    return ["fit", *(f"--{name}={value}" for name, value in small.items())]


OFFLINE = [
    name
    for name, path in shipped_configs().items()
    if "data_module: OfflineDataModule" in path.read_text().splitlines()
]
ONLINE = sorted(set(shipped_configs()) - set(OFFLINE))


@pytest.mark.parametrize("config", ONLINE)
def test_every_shipped_configuration_trains_two_iterations_and_resumes_to_four(config: str, tmp_path: Path) -> None:
    main(shrunk(config, tmp_path / "run", 2))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"] == 2
    main([*shrunk(config, tmp_path / "run", 4), f"--ckpt_path={last}"])
    assert torch.load(last, weights_only=True)["OnlineDataModule"]["iteration"] == 4
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {
        "checkpoints", "config.yaml", "csv", "curves.csv", "curves.png", "tensorboard",
    }  # fmt: skip
    with open(tmp_path / "run" / "curves.csv") as file:
        frames = [float(row["frames"]) for row in csv.DictReader(file)]
    assert frames == sorted(set(frames))
    assert len(frames) == 4


@pytest.mark.parametrize("config", OFFLINE)
def test_every_shipped_configuration_for_logs_trains_two_iterations_and_resumes_to_four(
    config: str, robot: Robot, tmp_path: Path
) -> None:
    def args(iterations: int) -> list[str]:
        small: dict[str, object] = {"data__rounds": 1, "data__batch": 16, "data__min_ess": None, "data_module": None}
        if config == "post_train.yaml":
            small |= {"model__init_from": robot.checkpoint, "model__critic_warmup": 1}
        return fit_args(tmp_path / "run", *robot.logs, config=config, data__iterations=iterations, **small)

    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    main(args(2))
    assert torch.load(last, weights_only=True)["OfflineDataModule"]["iteration"] == 2
    main([*args(4), f"--ckpt_path={last}"])
    assert torch.load(last, weights_only=True)["OfflineDataModule"]["iteration"] == 4
    with open(tmp_path / "run" / "curves.csv") as file:
        assert [int(row["iterations"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]
    # What the run was is in its configuration: no --data_module, no --config of ours.
    main(["fit", f"--config={tmp_path}/run/config.yaml", f"--ckpt_path={last}", "--data.iterations=5"])
    assert torch.load(last, weights_only=True)["OfflineDataModule"]["iteration"] == 5


def test_the_default_configuration_file_says_what_the_defaults_are(tmp_path: Path, capsys: Capture) -> None:
    def printed(*args: str) -> dict[str, object]:
        with pytest.raises(SystemExit, match="0"):
            main(["fit", *args, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)

    assert printed() == printed("--config", "metaworld.yaml")


FIELDS = {
    name: {
        f"{prefix}.{field}"
        for prefix, signature in {
            "model": GIPOModule, "data": DATA_MODULES[name], "checkpoint": LastCheckpoint, **groups,
        }.items()
        for field in inspect.signature(signature).parameters
    }
    for name, groups in {
        "OnlineDataModule": {
            "data.collector": CollectorOptions, "data.evaluation": EvaluationOptions, "data.ingest": IngestOptions,
        },
        "OfflineDataModule": {"data.evaluation": EvaluationOptions, "data.ingest": IngestOptions},
    }.items()
}  # fmt: skip


VARIANTS = sorted(set(ONLINE) - {"metaworld.yaml", "metaworld_fresh.yaml", "metaworld_stale.yaml"})


@pytest.mark.parametrize("config", VARIANTS)
def test_a_variant_differs_from_the_recipe_only_where_its_file_says(config: str, capsys: Capture) -> None:
    def printed(name: str) -> dict[str, dict[str, object]]:
        with pytest.raises(SystemExit, match="0"):
            main(["fit", "--config", name, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)

    recipe, variant = printed("metaworld.yaml"), printed(config)
    said = yaml.safe_load(shipped_configs()[config].read_text())
    differing = {
        (group, name)
        for group in ("data", "model", "trainer", "checkpoint")
        for name, value in variant[group].items()
        if recipe[group][name] != value
    }
    assert differing == {(group, name) for group, fields in said.items() for name in fields}


def test_objectives_are_found_by_their_bare_names(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--model.objective=ESPO", "--print_config"])
    objective = yaml.safe_load(capsys.readouterr().out)["model"]["objective"]
    assert objective["class_path"] == "gipo.baselines.ESPO"


@pytest.mark.parametrize("name", FIELDS)
def test_help_teaches_every_field(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", f"--data_module={name}", "--help"])
    words = capsys.readouterr().out
    # seed is linked to seed_everything; groups carry their fields.
    groups = {"data.collector", "data.evaluation", "data.ingest", "data.seed"}
    assert [field for field in sorted(FIELDS[name] - groups) if f"--{field} " not in words] == []
    undocumented = [
        line for line in words.splitlines() if line.strip().startswith("--") and line.rstrip().endswith("(type: int)")
    ]
    assert undocumented == []


CLASSES = {
    "model.objective": [GIPO, SAPO, PPOClip, ASPO, CISPO, ESPO],
    "data.estimator": [GAE, VTrace],
    "model.policy": [TokenPolicy, GaussianPolicy],
}


@pytest.mark.parametrize(("option", "cls"), [(option, cls) for option, found in CLASSES.items() for cls in found])
def test_class_help_explains_every_argument(option: str, cls: type, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", f"--{option}.help={cls.__module__}.{cls.__name__}"])
    words = capsys.readouterr().out
    for name in set(inspect.signature(cls).parameters) - {"spaces"}:
        assert f"{option}.{name}" in words


def test_help_explains_the_model_of_who_acted(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--data_module=OfflineDataModule", "--data.behaviour.help"])
    words = capsys.readouterr().out
    for name in inspect.signature(BehaviourOptions).parameters:
        assert f"--data.behaviour.{name} " in words


def test_validate_and_test_print_figures_and_touch_nothing(tiny: Args, tmp_path: Path, capsys: Capture) -> None:
    main(tiny("run", data__total_frames=32))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    capsys.readouterr()
    for command in ("validate", "test"):
        figures = set()
        for _ in range(2):
            main(
                tiny("run", command=command, ckpt_path=last, checkpoint__every=None, data__evaluation__test_episodes=2)
            )
            figures.add(capsys.readouterr().out)
        assert len(figures) == 1  # the same goals and the same noise every time
        assert "over 2 episodes (95 % intervals): success at any step" in figures.pop()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_the_run_folder_is_numbered_where_none_is_named(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = [arg for arg in tiny(data__task="Tiny-v0", data__total_frames=32) if "default_root_dir" not in arg]
    main(args)
    main(args)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["Tiny-v0-0", "Tiny-v0-1"]


@pytest.mark.usefixtures("no_plot")
def test_equal_runs_give_checkpoints_of_equal_ids(tiny: Args, tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        main(tiny(name, data__total_frames=32, seed_everything=seed))
    one, two, other = (read_head(tmp_path / name / "checkpoints" / "last.ckpt").id for name in ("one", "two", "other"))
    assert one == two != other


WORKERS = {"data__collector__workers": 2, "data__collector__num_envs": 2}


@pytest.mark.parametrize("options", [{}, pytest.param(WORKERS, marks=pytest.mark.campaign)], ids=["plain", "workers"])
def test_the_command_as_installed_trains_and_leaves_no_process(
    options: dict[str, int], tiny: Args, tmp_path: Path
) -> None:
    with open(tmp_path / "log.txt", "w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gipo.cli", *tiny(data__total_frames=64, **options)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"},
        )
        assert process.wait(120) == 0, (tmp_path / "log.txt").read_text()
    output = (tmp_path / "log.txt").read_text()
    assert "done: 64 environment steps" in output
    assert "Warning" not in output
    assert within(20, lambda: not living(lambda fields: int(fields[3]) == process.pid))
