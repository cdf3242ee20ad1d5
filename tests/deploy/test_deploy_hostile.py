"""Hostile and damaged files: refused with a clear message, before inference, in bounded memory and time."""

import os
import random
import re
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import pytest

import deploy.runtime.policy
from deploy.runtime.check import MAX_BYTES
from deploy.runtime.inference import new_session
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
from tests.deploy.forge import ARMED, STATIC, edited, opset

SECONDS = 3.0  # a refusal takes a few milliseconds; this is for a busy machine


def test_there_are_at_least_forty():
    assert len(STATIC) + len(ARMED) >= 40


@pytest.fixture
def usable(small):
    """The policy that was loaded before answers as before."""
    policy, row = small["loaded"], np.ones(5, np.float32)
    before = policy.act(row, np.random.default_rng(0))
    yield
    assert np.array_equal(before.params, policy.act(row, np.random.default_rng(0)).params)


def refused(file, message):
    start = time.process_time()  # others may be using the machine
    with pytest.raises(UserError, match=message) as error:
        OnnxPolicy.load(file)
    assert time.process_time() - start < SECONDS
    assert len(str(error.value)) < 600
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", STATIC)
def test_refused_from_its_bytes(small, tmp_path, monkeypatch, usable, name):
    def never(*_):
        raise AssertionError("ONNX Runtime was given a file that no check had passed")

    monkeypatch.setattr(deploy.runtime.policy, "new_session", never)
    forge, message = STATIC[name]
    file = tmp_path / "policy.onnx"
    file.write_bytes(forge(small["file"].read_bytes()))
    refused(file, message)


@pytest.mark.parametrize("name", ARMED)
def test_refused_before_it_may_act(small, tmp_path, usable, name):
    forge, message = ARMED[name]
    file = tmp_path / "policy.onnx"
    file.write_bytes(forge(small["file"].read_bytes()))
    refused(file, message)


def test_a_checkpoint_or_a_log_in_place_of_an_artifact_is_named(small, tmp_path):
    (tmp_path / "a.mcap").write_bytes(b"\x89MCAP0\r\n" * 9)
    for path, words in ((small["checkpoint"], "gipo-deploy export makes an artifact of a checkpoint"),
                        (tmp_path / "a.mcap", "but a log")):  # fmt: skip
        with pytest.raises(UserError, match=f"^{re.escape(str(path))}: this file is no exported policy, .*{words}$"):
            OnnxPolicy.load(path)


def test_refuses_what_is_no_plain_file(small, tmp_path, usable):
    link, pipe, large = tmp_path / "link.onnx", tmp_path / "pipe.onnx", tmp_path / "large.onnx"
    link.symlink_to(small["file"])
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no disk
    for path, message in [
        (link, "symbolic link"),
        (pipe, "not a regular file"),
        (large, "more than the"),
        (tmp_path, "not a regular file|Is a directory"),
        (tmp_path / "missing.onnx", "No such file"),
        ("/dev/zero", "not a regular file"),
        ("nul\0byte", "embedded null"),
    ]:
        refused(path, message)


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.campaign)])
def test_no_flipped_byte_and_no_truncation_passes(small, tmp_path, count):
    data, generator, file = small["file"].read_bytes(), random.Random(8), tmp_path / "policy.onnx"
    for _ in range(count):
        place = generator.randrange(len(data))
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        for forged in (bytes(damaged), data[:place]):
            file.write_bytes(forged)
            with pytest.raises(UserError):
                OnnxPolicy.load(file)


def test_every_hostile_file_is_refused_in_bounded_memory(small, tmp_path):
    data = small["file"].read_bytes()
    for i, (forge, _) in enumerate([*STATIC.values(), *ARMED.values()]):
        (tmp_path / f"{i}.onnx").write_bytes(forge(data))
    script = f"""
import pathlib, resource, sys
from deploy.runtime.policy import OnnxPolicy
from gipo.common.errors import UserError
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
OnnxPolicy.load({str(small["file"])!r})
before, refused = peak(), 0
for file in sorted(pathlib.Path({str(tmp_path)!r}).iterdir()):
    try:
        OnnxPolicy.load(file)
    except UserError:
        refused += 1
assert "torch" not in sys.modules and "onnx" not in sys.modules
print(refused, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    refusals, grown = done.stdout.split()
    assert int(refusals) == len(STATIC) + len(ARMED)
    assert float(grown) < 150, "MiB"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("forge", "what"),
    [
        (edited(lambda model: setattr(model, "ir_version", 99)), "IR version 99"),
        (edited(opset("", 99)), "opset 99"),
    ],
    ids=["IR version", "opset"],
)
def test_an_older_onnx_runtime_and_a_newer_file_are_both_named(small, forge, what):
    """What a robot's ONNX Runtime answers to a file that is newer than it."""
    reads = rf"the file has {what}, onnxruntime {re.escape(onnxruntime.__version__)} reads up to \d+; upgrade"
    with pytest.raises(UserError, match=reads) as error:
        new_session(forge(small["file"].read_bytes()))
    assert "/" not in str(error.value)
