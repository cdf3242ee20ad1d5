"""Questions to a person: at a real terminal, at none, and at one that goes away."""

import os
import pty
import sys
import threading
import time
from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.drivers.lerobot import LeRobotRobot
from robots.session import prompt
from tests.robots.test_hold import Base, base_spec

WHO_IS_ASKED = """
import os, sys
from robots.session import prompt
print(prompt.attended(), flush=True)
if not (child := os.fork()):
    os.setpgid(0, 0)  # as a shell does for what ends with &
    print(prompt.attended(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def test_nobody_is_asked_from_the_background() -> None:
    child, master = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", WHO_IS_ASKED])
    said = b""
    while len(said.split()) < 2 and (part := os.read(master, 1024)):
        said += part
    os.waitpid(child, 0)
    os.close(master)
    assert said.split() == [b"True", b"False"]


def later(function: Any, *arguments: Any) -> None:
    threading.Timer(0.1, function, arguments).start()


def test_an_answer(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    later(os.write, terminal, b"reset\n")
    assert prompt.ask_reset("the cable is out", lambda: False)
    shown = capsys.readouterr()
    assert "STOPPED: the cable is out\nLook at the robot. Type reset to go on" in shown.err
    assert not shown.out, "which goes elsewhere than to the person"
    later(os.write, terminal, b"no\n")
    assert not prompt.ask_reset("the cable is out", lambda: False)


def test_a_question_is_shown_where_a_driver_has_left_a_stream_open(
    terminal: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = open(os.devnull, "w")  # noqa: SIM115
    closed.close()
    for stream in ("stdout", "stderr"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, stream, closed)
            later(os.write, terminal, b"reset\n")
            assert prompt.ask_reset("the cable is out", lambda: False)
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", closed)
    later(os.write, terminal, b"no\n")
    assert not prompt.ask_reset("the cable is out", lambda: False)


def test_an_answer_in_two_parts_is_one(terminal: int) -> None:
    """Ctrl-D within a line hands over what was typed so far."""
    later(os.write, terminal, b"re\x04set\n")
    assert prompt.ask_reset("the cable is out", lambda: False)


def test_what_was_typed_before_the_question_is_no_answer(terminal: int) -> None:
    os.write(terminal, b"reset\n")
    time.sleep(0.05)
    later(os.write, terminal, b"no\n")
    assert prompt.ask("?", lambda: False) == "no"


def test_a_question_ends_when_it_is_withdrawn(terminal: int) -> None:
    end = time.monotonic() + 0.1
    assert prompt.ask("?", lambda: time.monotonic() > end) is None
    assert time.monotonic() < end + 1


def test_a_terminal_that_goes_is_told_by_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    signalled = threading.Event()
    with open(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        later(os.close, master)
        threading.Timer(0.2, signalled.set).start()
        assert prompt.ask("?", signalled.is_set) is None
        assert signalled.is_set(), "the question waits for the reason of its end"


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, terminal: int) -> None:
    later(os.write, terminal, b"\x04")  # Ctrl-D
    assert prompt.ask("?", lambda: False) is None
    with open(os.devnull) as stdin:
        for nobody in (None, stdin):
            monkeypatch.setattr(sys, "stdin", nobody)
            assert not prompt.attended()
            assert prompt.ask("?", lambda: False) is None
    monkeypatch.setattr(sys, "stdin", stdin)  # closed by now
    assert not prompt.attended()
    assert prompt.ask("?", lambda: False) is None


def test_a_stop_ends_the_wait_for_the_scene(terminal: int) -> None:
    device = Base()
    robot = LeRobotRobot(device, base_spec(), wait=True)
    robot.connect()
    later(robot.stop, "SIGINT")
    began = time.monotonic()
    with pytest.raises(UserError, match="nobody has placed the scene"):
        robot.prepare(0)
    assert time.monotonic() - began < 2
    with pytest.raises(UserError, match="stopped"):
        robot.act([])  # type: ignore[arg-type]
    later(os.write, terminal, b"\n")
    robot.prepare(0)


def test_a_robot_that_waits_for_nobody_is_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    device: Any = Base()
    device.connect = lambda **_: pytest.fail("nothing may be opened")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="--set wait=false"):
        LeRobotRobot(device, base_spec(), wait=True).connect()
