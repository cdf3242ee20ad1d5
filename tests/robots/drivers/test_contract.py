"""What is no robot is told before it is connected: found out later, it could not be stopped."""

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest

from gipo.common.errors import UserError
from robots.drivers.calls import Call
from robots.drivers.contract import check_robot
from robots.session.options import Options
from robots.session.runner import Runner
from tests.robots.fakes import FakeRobot
from tests.robots.session_process import Wave


async def later(*_: Any) -> None: ...


def some(*_: Any) -> Any:
    yield


@pytest.mark.parametrize("method", ["connect", "prepare", "observe", "act", "stop", "close"])
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, r"--robot a:B gives a FakeRobot without {}\(\)"),
        (later, r"FakeRobot\.{} is async or a generator, and a call of it does nothing"),
        (some, r"FakeRobot\.{} is async or a generator"),
        (functools.partial(later), r"FakeRobot\.{} is async or a generator"),
        (lambda one, two: None, r"FakeRobot\.{} cannot be called with \((seed|action|reason|)\): missing a required"),
    ],
)
def test_methods_that_are_none(method: str, made: Any, said: str) -> None:
    robot = FakeRobot()
    setattr(robot, method, made)
    with pytest.raises(UserError, match=said.format(method)):
        check_robot(robot, "--robot a:B")


def test_a_stop_that_takes_no_reason() -> None:
    robot = FakeRobot()
    robot.stop = lambda: None  # type: ignore[method-assign,assignment,misc]
    with pytest.raises(UserError, match=r"stop cannot be called with \(reason\): too many positional arguments"):
        check_robot(robot, "the robot")


@pytest.mark.parametrize("spec", [None, {"name": "arm"}, FakeRobot().spec.to_json(), lambda: FakeRobot().spec])
def test_a_spec_that_is_none(spec: Any) -> None:
    robot = FakeRobot()
    robot.spec = spec
    with pytest.raises(UserError, match=rf"spec of FakeRobot is a {type(spec).__name__}; it must be a robots.spec"):
        check_robot(robot, "the robot")


def test_a_spec_that_needs_a_connection() -> None:
    class Late(FakeRobot):
        @property  # type: ignore[override]
        def spec(self) -> Any:
            raise OSError("port is closed")

        @spec.setter
        def spec(self, value: Any) -> None: ...

        def __init__(self) -> None: ...

    with pytest.raises(UserError, match=r"its spec before it is connected: OSError in spec \(.*: port is closed"):
        check_robot(Late(), "the robot")


def test_methods_of_a_library_in_c_are_let_through() -> None:
    robot = FakeRobot()
    robot.stop = {}.update  # type: ignore[method-assign,assignment] # which says nothing of its arguments
    check_robot(robot, "the robot")


def test_a_session_refuses_what_is_no_robot(tmp_path: Path) -> None:
    robot = FakeRobot()
    robot.stop = later  # type: ignore[method-assign,assignment]
    policy: Any = Wave(FakeRobot().spec)
    with pytest.raises(UserError, match=r"FakeRobot\.stop is async"):
        Runner(robot, policy, Options(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_work_that_nobody_does_is_no_call_that_was_made() -> None:
    """As where a decorator hides that a method is async."""
    assert Call(lambda: later()).wait(1) == "TypeError: it returned a coroutine, which nobody runs"
    assert Call(lambda: some()).wait(1) == "TypeError: it returned a generator, which nobody runs"
    assert Call(lambda: asyncio.run(later())).wait(5) == ""
