"""What a program that is over waits for is named, once it is waited for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import concurrent.futures, multiprocessing, threading, time
import robots.session.leftovers
from robots.session.leftovers import Leftovers

def read():
    time.sleep(1.5)

robots.session.leftovers.PATIENCE_SECONDS = 0.2
leftovers = Leftovers()
{begun}
leftovers.tell()
{after}
"""
POOL = "pool = concurrent.futures.ThreadPoolExecutor(1)\npool.submit(time.sleep, 0.01).result()"


def said(begun: str, after: str = "") -> str:
    command = [sys.executable, "-c", PROGRAM.format(begun=begun, after=after)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    return done.stderr


@pytest.mark.parametrize(
    ("begun", "name"),
    [
        ("threading.Thread(target=read, name='reader').start()", "reader"),
        ("multiprocessing.get_context('fork').Process(target=read, name='camera').start()", "camera"),
    ],
)
def test_what_a_program_waits_for_is_named(begun: str, name: str) -> None:
    assert said(begun) == (
        f"gipo-robot: the session is over, and Python waits for {name}, which the driver or operator began: end it in "
        "close(), or make it a daemon\n"
    )


@pytest.mark.parametrize("begun", ["", "threading.Thread(target=read, daemon=True).start()", POOL])
def test_of_what_ends_by_itself_nothing_is_said(begun: str) -> None:
    assert said(begun) == ""


def test_of_a_program_that_goes_on_nothing_is_said() -> None:
    assert said("threading.Thread(target=read).start()", "time.sleep(2)") == ""


def test_a_session_names_what_its_driver_left(policies: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "arm_with_reader.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3.5,), name='reader').start()\n"
    )
    command = [sys.executable, "-m", "robots.cli", "run", "--policy", str(policies["token"])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    robot = ["--robot", "arm_with_reader:Arm", "--log", str(tmp_path / "logs")]
    done = subprocess.run([*command, *robot], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert "there is no robot 'arm_with_reader:Arm'" in first
    assert "Python waits for reader, which the driver or operator began" in second
