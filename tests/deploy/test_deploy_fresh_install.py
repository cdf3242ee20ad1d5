"""`pip install .` alone, in an environment of its own, checks, shows and times a policy; torch is not there."""

import shutil
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
    assert "pip install '.[train]' in a clone of gipo" in done.stderr


def test_lineage_names_the_checkpoint_and_what_was_made_of_it(robot, small, tmp_path):
    shutil.copy(small["checkpoint"], tmp_path / "best.ckpt")
    shutil.copy(small["file"], tmp_path / "policy.onnx")
    done = subprocess.run([robot / "gipo", "lineage", tmp_path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "best.ckpt" in done.stdout
    assert f"artifact {small['loaded'].policy_id[:12]}  policy.onnx" in done.stdout
    way_out = "pip install '.[train]' in a clone of gipo"
    assert done.stderr == f"gipo: no picture is drawn, matplotlib is not installed: {way_out}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "policy.onnx"]


@pytest.mark.parametrize("command", [["gipo", "fit"], ["gipo-study", "theory"]])
def test_what_needs_more_says_what(robot, tmp_path, command):
    name, *options = command
    done = subprocess.run([robot / name, *options], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{name}: error: ")
    assert "pip install '.[train]' in a clone of gipo" in done.stderr
