"""Every gipo command in the README runs, on a shrunken problem; every make target it names exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cli import main as deploy
from gipo.cli import main
from gipo.studies.cli import main as study
from robots.cli import main as robot

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FENCED = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.S))
COMMANDS = list(
    dict.fromkeys(
        line.partition("#")[0].strip()
        for line in [*FENCED.splitlines(), *re.findall(r"`(gipo \w+ -[^`…]+)`", README)]
        if line.startswith("gipo ")
    )
)
LONG_STUDIES = ("loop", "posttrain", "staleness")  # which tests of their own run
STUDIES = [
    line.partition("#")[0].strip()
    for line in FENCED.splitlines()
    if line.startswith("gipo-study ") and line.split()[1] not in LONG_STUDIES
]
OFFLINE = "--trainer.max_epochs=1 --data.rounds=1 --data.batch=16 --model.critic_warmup=0"
SHRINK = {
    "fit": """--trainer.max_epochs=1 --data.frames_per_iteration=8 --data.warmup_frames=0 --data.capacity=64
        --data.rounds=1 --data.batch=16 --data.collector.num_envs=2 --data.evaluation.num_envs=1""",
    "test": "--data.evaluation.num_envs=1 --data.evaluation.test_episodes=1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run and the files that the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    for text, name in re.findall(r"```\w+\n(# (\w+\.(?:py|yaml))\b.*?)```", README, re.S):
        (folder / name).write_text(text)
    evaluated = ["--trainer.check_val_every_n_epoch=1", "--data.evaluation.episodes=1"]
    main(["fit", *SHRINK["fit"].split(), *evaluated, f"--trainer.default_root_dir={folder}/runs/demo"])
    checkpoint, policy = f"{folder}/runs/demo/checkpoints/best.ckpt", f"{folder}/policy.onnx"
    assert deploy(["export", checkpoint, "--out", policy]) == 0
    drive = ["--episodes", "2", "--steps", "40", "--speed", "20", "--log", f"{folder}/logs"]
    assert robot(["run", "--policy", policy, *drive]) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    args = shlex.split(command.replace("SEED", "1"))[1:]
    if "--help" in args:
        with pytest.raises(SystemExit, match="0"):
            main(args)
        return
    offline = any(name in command for name in ("post_train", "bc.yaml"))
    main([*args, *(OFFLINE if offline else SHRINK.get(args[0], "")).split()])


def test_the_test_of_the_example_passes(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_objectives.py"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout


@pytest.mark.parametrize("command", STUDIES)
def test_study_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"theory": ["--draws=10"]}
    args = shlex.split(command)[1:]
    study([*args, *small.get(args[0], [])])
    assert list((tmp_path / "studies" / args[0]).glob("*.png"))


def test_make_targets_exist() -> None:
    named = set(re.findall(r"^make (\w+)", FENCED, re.M)) | set(re.findall(r"`make (\w+)`", README))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert named
    assert named <= targets


def test_every_file_of_the_tree_exists() -> None:
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", README, re.S)
    assert tree
    folder = ""
    for line in tree[1].splitlines():
        folder = (re.match(r"(\w+/)", line) or [None, folder])[1]
        for name in re.findall(r"\w+\.(?:py|yaml)", line):
            assert list((ROOT / folder).rglob(name)), f"{folder}{name} is in the README's tree only"
