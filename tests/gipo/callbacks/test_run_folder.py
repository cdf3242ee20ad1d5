"""Run folders: a name is had by one run, a folder is written to by one process, a resumed run finds its own."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from jsonargparse import Namespace

from gipo.callbacks.run_folder import (
    IN_USE,
    RunFolder,
    absolute,
    beginning_of,
    choose,
    folder_of,
    with_absolute_paths,
)
from gipo.cli import main
from gipo.common.errors import UserError
from tests.test_bad_input import refused

Args = Callable[..., list[str]]
Capture = pytest.CaptureFixture[str]
TINY = {"data__task": "Tiny-v0", "data__total_frames": 64}


def unnamed(args: list[str]) -> list[str]:
    return [arg for arg in args if "default_root_dir" not in arg]


def iteration(folder: Path) -> int:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["OnlineDataModule"]["iteration"]


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_runs_that_begin_together_have_a_folder_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: RunFolder.numbered(tmp_path / "runs", "reach-v3"), range(8)))
    assert sorted(folder.path.name for folder in folders) == [f"reach-v3-{number}" for number in range(8)]
    for folder in folders:
        folder.release()
    assert not list(tmp_path.glob("runs/*"))  # nothing came of them


def hold(path: Path, held: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    folder = RunFolder(path)
    held.set()
    done.wait(60)
    folder.release()


def test_a_folder_that_another_process_writes_to_is_refused(
    tiny: Args, tmp_path: Path, capsys: Capture, no_plot: None
) -> None:
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", held, done))
    other.start()
    assert held.wait(60)
    try:
        error = refused(tiny(**TINY), capsys)
        assert f"{tmp_path / 'run'} is in use by process {other.pid} on" in error
        assert "name another --trainer.default_root_dir" in error
        assert os.listdir(tmp_path / "run") == [IN_USE]
    finally:
        done.set()
        other.join()
    main(tiny(**TINY))
    assert iteration(tmp_path / "run") == 2
    assert not (tmp_path / "run" / IN_USE).exists()


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held = context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", held, context.Event()))
    other.start()
    assert held.wait(60)
    other.kill()
    other.join()
    RunFolder(tmp_path / "run").release()


@pytest.mark.usefixtures("no_plot")
def test_a_run_resumed_from_another_folder_goes_on_in_its_own(
    tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        main(unnamed(tiny(**TINY)))
    run, other = tmp_path / "A" / "runs" / "Tiny-v0-0", tmp_path / "B" / "runs" / "Tiny-v0-0"
    before = snapshot(other)
    args = [f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/last.ckpt"]
    capsys.readouterr()
    main(["fit", *args, "--data.total_frames=96"])  # in B, where a run of the same name is
    assert iteration(run) == 3
    assert snapshot(other) == before
    assert f"{run} holds" in capsys.readouterr().out
    # A configuration of an older version kept the folder as it was typed.
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["default_root_dir"] = "runs/Tiny-v0-0"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    main(["fit", *args, "--data.total_frames=128"])
    assert iteration(run) == 4
    assert snapshot(other) == before
    # Moved, it goes on where it is now, and its best policy is still the best.
    moved = tmp_path / "moved"
    shutil.move(run, moved)
    main(["fit", f"--config={moved}/config.yaml", f"--ckpt_path={moved}/checkpoints/last.ckpt",
          "--data.total_frames=160"])  # fmt: skip
    assert iteration(moved) == 5
    assert not run.exists()
    # Another run's folder is never written to.
    error = refused(["fit", f"--config={moved}/config.yaml", f"--ckpt_path={moved}/checkpoints/last.ckpt",
                     f"--trainer.default_root_dir={other}"], capsys)  # fmt: skip
    assert "holds a run that" in error
    assert snapshot(other) == before


@pytest.mark.usefixtures("no_plot")
def test_a_moved_run_keeps_its_best_policy(tiny: Args, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TINY | {"trainer__check_val_every_n_epoch": 1}
    main(tiny(**options))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    last = tmp_path / "moved" / "checkpoints" / "last.ckpt"
    # From here on every evaluation is worse than those before.
    monkeypatch.setattr("datamodules.base.evaluate", lambda *_, **__: _worse())
    best = (tmp_path / "moved" / "checkpoints" / "best.ckpt").read_bytes()
    main(["fit", f"--config={tmp_path}/moved/config.yaml", f"--ckpt_path={last}", "--data.total_frames=96"])
    assert iteration(tmp_path / "moved") == 3
    assert (tmp_path / "moved" / "checkpoints" / "best.ckpt").read_bytes() == best


def _worse() -> object:
    from tensordict import TensorDict

    return TensorDict({"return": torch.full((2,), -1e6), "length": torch.ones(2, dtype=torch.int64)}, [2])


def test_paths_of_a_configuration_hold_from_everywhere(robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.offline import post_train_args

    monkeypatch.chdir(robot.folder)
    relative = {"data__logs": f"[{', '.join(os.path.relpath(log) for log in robot.logs)}]"}
    relative |= {"model__init_from": os.path.relpath(robot.checkpoint), "data__iterations": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gipo.callbacks.reporting.plot_curves", lambda *_, **__: None)
        main(post_train_args(tmp_path / "run", robot, **relative))
        kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert kept["data"]["logs"] == [str(log) for log in robot.logs]
        assert kept["model"]["init_from"] == str(robot.checkpoint)
        monkeypatch.chdir(tmp_path)
        main(["fit", f"--config={tmp_path}/run/config.yaml", "--data.iterations=2",
              f"--ckpt_path={tmp_path}/run/checkpoints/last.ckpt"])  # fmt: skip
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["OfflineDataModule"]["iteration"] == 2


def test_the_folder_of_a_user_is_known_where_no_shell_has_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choose("~/run", None, []) == tmp_path / "run"
    assert folder_of("~/run/checkpoints/last.ckpt") == tmp_path / "run"
    assert absolute("~/run") == str(tmp_path / "run")
    assert absolute("a~/~b") == f"{Path.cwd()}/a~/~b"


def test_a_folder_of_a_pretrained_model_is_known_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of a hub stays one."""
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for given, known in (("mine", str(tmp_path / "mine")), ("them/theirs", "them/theirs")):
        network = Namespace(class_path="Body", init_args=Namespace(pretrained=given))
        policy = Namespace(class_path="Policy", init_args=Namespace(network=network, bins=3))
        config = Namespace(data=Namespace(logs=None), model=Namespace(init_from=None, policy=policy))
        with_absolute_paths(config)
        assert network.init_args.pretrained == known
    with_absolute_paths(Namespace(data=Namespace(), model=Namespace(policy="TokenPolicy")))


def test_where_a_run_goes_on(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        (folder / "config.yaml").write_text(f"trainer:\n  default_root_dir: {other}\n")
    last = str(own / "checkpoints" / "last.ckpt")
    assert folder_of(last) == own
    assert folder_of(tmp_path / "copied.ckpt") is None
    assert choose(None, None, []) is None
    assert choose(None, last, []) == own
    assert choose(str(tmp_path / "new"), last, []) == tmp_path / "new"  # a branch of it
    assert choose(str(other), last, [str(own / "config.yaml")]) == own  # where it was when it began
    for checkpoint in (last, str(tmp_path / "copied.ckpt"), None):
        with pytest.raises(UserError, match="holds"):
            choose(str(other), checkpoint, [str(other / "config.yaml")])


@pytest.mark.parametrize("kind", ["a file", "below a file"])
def test_what_cannot_be_a_folder_is_refused_by_its_option(
    kind: str, tiny: Args, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("mine")
    where = tmp_path / "file" / ("x" if kind == "below a file" else "")
    args = [*unnamed(tiny(**TINY)), f"--trainer.default_root_dir={str(where).rstrip('/')}"]
    assert "--trainer.default_root_dir" in refused(args, capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_working_folder_that_cannot_hold_runs_is_told_with_the_way_out(tmp_path: Path) -> None:
    """As one that may only be read; here a file has the name."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match=r"runs cannot hold a run: .*; name another --trainer\.default_root_dir"):
        RunFolder.numbered(tmp_path / "runs", "reach-v3")
    assert (tmp_path / "runs").is_file()


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (None, "logs"), ("reach-v3", "reach-v3"), ("ALE/Pong-v5", "ALE-Pong-v5"), ("my:My.Task-v0", "my:My.Task-v0"),
        ("my_sim.Line", "Line"), (SimpleNamespace(class_path="my_sim.Line"), "Line"),
    ],
)  # fmt: skip
def test_a_run_is_named_by_its_task_however_the_task_is_given(task: object, name: str) -> None:
    assert beginning_of(SimpleNamespace(data={"task": task})) == name
