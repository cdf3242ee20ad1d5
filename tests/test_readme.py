"""Every gipo command of the README and of docs/ runs, on a shrunken problem; what they name exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import main as deploy
from gipo.cli import main
from gipo.studies.cli import main as study
from robots.cli import main as robot
from tests.gipo.vla.builders import save_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TEXT = "\n".join(PAGES.values())
FENCED = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.S))
HEAVY = ("ray", "ddp", "Libero")  # start other processes or render: their tests have smaller runs of the same


def commands() -> list[Any]:
    """`gipo …` of blocks and of running text, each once."""
    lines = [*FENCED.splitlines(), *re.findall(r"`(gipo \w+ -[^`…]+)`", TEXT)]
    unique = dict.fromkeys(line.partition("#")[0].strip() for line in lines if line.startswith("gipo "))
    cloned = ("demonstrations", "runs/cloned", "runs/improved")  # which a test of their own runs in order
    return [
        pytest.param(line, marks=[pytest.mark.campaign] if any(word in line for word in HEAVY) else [])
        for line in unique
        if not any(word in line for word in cloned)
    ]


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
    save_model(folder / "MODEL", bins=32)
    return folder


@pytest.mark.parametrize("command", commands())
def test_command_runs(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    args = shlex.split(command.replace("SEED", "1"))[1:]
    if "--help" in args:
        with pytest.raises(SystemExit, match="0"):
            main(args)
        return
    offline = any(name in command for name in ("post_train", "bc.yaml"))
    args += (OFFLINE if offline else SHRINK.get(args[0], "")).split()
    if any(word in command for word in HEAVY):
        one = ["--data.collector.num_envs=1"]
        ran = subprocess.run([sys.executable, "-m", "gipo.cli", *args, *one], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return
    main(args)


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


@pytest.mark.campaign
@pytest.mark.timeout(1200)
def test_libero_from_demonstrations_to_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```bash\n([^`]*libero\.demos.*?)```", PAGES[ROOT / "docs" / "libero.md"], re.S)
    lines = [line.partition("#")[0].strip() for line in block.splitlines()]
    one = "--data.collector.num_envs=1 --data.evaluation.episodes=1"
    small = [["--episodes=2"], OFFLINE.split(), f"{SHRINK['fit']} {one}".split(), SHRINK["test"].split()]
    assert lines[0].startswith("pip install")
    for line, options in zip(lines[1:], small, strict=True):
        command = shlex.split(line)
        command = (
            [sys.executable, *command[1:]]
            if command[0] == "python"
            else [sys.executable, "-m", "gipo.cli", *command[1:]]
        )
        ran = subprocess.run([*command, *options], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_exists(page: Path) -> None:
    linked = re.findall(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)", PAGES[page])
    for path, anchor in linked:
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert anchor[1:] in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


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
