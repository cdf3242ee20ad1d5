"""Artifacts exported once for all tests of this folder."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.runtime.policy import OnnxPolicy
from tests.artifacts import artifacts

Kit = dict[str, Any]

SOURCE = Path(__file__).parents[2]
PACKAGES = ("gipo", "datamodules", "robots", "deploy")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Kit]:
    """Policy, checkpoint, artifact and report of each kind (`KINDS`, and with `-int8`), made once when first asked."""
    pytest.importorskip("torch", reason="exported with torch")
    from deploy.export.artifact import Exported, export
    from tests.deploy.builders import make_policy, save

    made: dict[str, Kit] = {}
    folder = tmp_path_factory.mktemp("artifacts")

    def get(kind: str) -> Kit:
        if kind not in made:
            policy = make_policy(kind.removesuffix("-int8"))
            checkpoint, file = save(policy, folder / f"{kind}.ckpt"), folder / f"{kind}.onnx"
            done: Exported = export(checkpoint, file, quantize="dynamic" if kind.endswith("int8") else None)
            made[kind] = {"policy": policy, "checkpoint": checkpoint, "file": file, "done": done}
        return made[kind]

    return get


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """A small artifact (32 hidden units), for tests that read or damage it many times."""
    folder = artifacts("deploy", tmp_path_factory.mktemp("small"))
    file = folder / "small.onnx"
    return {"checkpoint": folder / "small.ckpt", "file": file, "loaded": OnnxPolicy.load(file)}


@pytest.fixture(scope="session")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripts folder of a fresh environment with this project and what it requires, no extra."""
    folder = tmp_path_factory.mktemp("robot")
    tree, environment = folder / "source", folder / "venv"
    tree.mkdir()
    for package in PACKAGES:  # a copy: building leaves files beside the source
        shutil.copytree(SOURCE / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(SOURCE / file, tree / file)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip = [sys.executable, "-m", "pip", "--python", environment, "--disable-pip-version-check"]
    constraints = SOURCE / "constraints.txt"  # the tested versions; limits what is installed, adds nothing
    command = [*pip, "install", "--quiet", "--no-compile", "-c", constraints, tree]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return environment / ("Scripts" if sys.platform == "win32" else "bin")
