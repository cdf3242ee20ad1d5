"""`pip install .` alone, in an environment of its own, checks, shows and times a policy; torch is not there."""

import subprocess

import pytest


def test_torch_is_not_there(robot):
    done = subprocess.run([robot / "python", "-c", "import torch"], capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["check"], "ok  golden"),
        (["info"], "50 Hz"),
        (["bench", "--count", "200"], "onnxruntime"),
    ],
)
def test_commands(robot, small, tmp_path, command, expected):
    name, *options = command
    done = subprocess.run(
        [robot / "gipo-deploy", name, small["file"], *options], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout


def test_export_says_what_it_needs(robot, small, tmp_path):
    done = subprocess.run(
        [robot / "gipo-deploy", "export", small["checkpoint"], "--out", tmp_path / "p.onnx"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "gipo[train]" in done.stderr
