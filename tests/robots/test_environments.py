"""The base install looks at logs, and `sim` beside it runs the arm: without torch, in environments of their own."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PACKAGES = ("robots", "deploy", "gipo", "datamodules")


def declared(*extras: str) -> list[Requirement]:
    """Requirements of `pip install .[extras]`, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def closure(wanted: list[Requirement]) -> set[str]:
    """Names of the distributions that installing `wanted` brings."""
    names: set[str] = set()
    waiting = [(each, "") for each in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in names:
            continue
        names.add(name)
        needs = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        waiting += [(each, chosen) for each in needs for chosen in ["", *requirement.extras]]
    return names


def environment(folder: Path, *extras: str) -> dict[str, str]:
    """Variables for a Python that finds this package and what it declares, and nothing else that is installed here."""
    folder.mkdir()
    try:
        names = closure(declared(*extras))
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"not installed here: {error}")
    for name in names:
        for file in importlib.metadata.files(name) or []:
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    for package in PACKAGES:
        (folder / package).symlink_to(ROOT / package)
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONNOUSERSITE": "1"}


def run(variables: dict[str, str], *arguments: str | Path) -> str:
    """`gipo-robot` in that environment."""
    command = [sys.executable, "-S", "-m", "robots.cli", *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def lacks(variables: dict[str, str], module: str) -> bool:
    code = f"import {module}"
    return (
        subprocess.run([sys.executable, "-S", "-c", code], env=variables, capture_output=True, cwd="/").returncode != 0
    )


def test_the_base_install_looks_at_logs(session: Path, policies: dict[str, Path], tmp_path: Path) -> None:
    base = environment(tmp_path / "base")
    session = Path(shutil.copy(session, tmp_path))
    for module in ("torch", "gymnasium", "metaworld", "matplotlib", "pandas", "scipy"):
        assert lacks(base, module), module
    assert "sim, 80 Hz" in run(base, "info", session)
    assert "sealed" in run(base, "verify", session)
    assert "appended" in run(base, "label", session, "--episode", "0", "--failure")
    assert "180" in run(base, "audit", session, "--policies", policies["token"].parent)
    run(base, "report", session, "--out", tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_sim_runs_without_torch(policies: dict[str, Path], tmp_path: Path) -> None:
    sim = environment(tmp_path / "sim", "sim")
    assert lacks(sim, "torch")
    command = ["run", "--policy", policies["token"], "--log", tmp_path / "logs", "--episodes", "1", "--steps", "20"]
    assert "of 1 episode, mean return" in run(sim, *command, "--speed", "20")


def test_no_module_pulls_in_what_it_must_not() -> None:
    code = (
        "import importlib, pkgutil, sys, robots\n"
        "names = [m.name for m in pkgutil.walk_packages(robots.__path__, 'robots.') if 'export_' not in m.name]\n"
        "assert len(names) > 20, names\n"
        "[importlib.import_module(name) for name in names]\n"
        "bad = 'torch datamodules gymnasium metaworld mujoco pyarrow minari pandas lerobot rerun'.split()\n"
        "bad += [name for name in sys.modules if name.startswith('gipo.') and not name.startswith('gipo.common')]\n"
        "print([name for name in bad if name in sys.modules])\n"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.campaign
@pytest.mark.parametrize("extra", ["", "[sim]"])
def test_freshly_installed(extra: str, session: Path, policies: dict[str, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}{extra}"], check=True, timeout=900)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, cwd="/").returncode != 0
    tool = tmp_path / "env" / "bin" / "gipo-robot"
    commands: list[list[str | Path]] = [["info", session], ["verify", session]]
    commands += [
        ["audit", session, "--policies", policies["token"].parent],
        ["report", session, "--out", tmp_path / "r.html"],
    ]
    if extra:
        commands += [
            ["run", "--policy", policies["token"], "--log", tmp_path / "logs", "--episodes", "1", "--speed", "20"]
        ]
    for command in commands:
        subprocess.run([tool, *command], check=True, timeout=300, cwd="/")
