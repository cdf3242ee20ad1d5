"""Every command and every program under "Put it on a robot" runs as it stands."""

import shlex
import subprocess
from pathlib import Path

import pytest

from deploy.cli import main

ROOT = Path(__file__).parents[2]
HEADING = "## Put it on a robot"


def blocks(language):
    text = next(t for t in (path.read_text() for path in ROOT.glob("README*.md")) if HEADING in t)
    section = text.split(HEADING, 1)[1].split("\n## ")[0]
    return [part.split("```")[0] for part in section.split(f"```{language}\n")[1:]]


def test_three_commands(exported, robot, tmp_path, monkeypatch):
    export, install, check = blocks("bash")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(export)
    assert program == "gipo-deploy"
    checkpoint = Path(arguments[1])
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(exported("token-separate")["checkpoint"].read_bytes())
    assert main(arguments) == 0
    assert install == "pip install ."  # what the `robot` fixture did
    program, *arguments = shlex.split(check)
    done = subprocess.run([robot / program, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok  golden" in done.stdout


@pytest.mark.parametrize("program", blocks("python"))
def test_programs(robot, small, tmp_path, program):
    (tmp_path / "policy.onnx").write_bytes(small["file"].read_bytes())
    done = subprocess.run([robot / "python", "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
