"""What a session does at its ends, and what it refuses before it touches the robot."""

import ctypes
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.latch import Latch
from robots.log import LogWriter, Session, Step, pixels_of, read_images, read_log
from robots.session.options import Options
from robots.session.runner import Runner
from robots.session.summary import Report
from tests.robots.builders import make_spec
from tests.robots.fakes import FakeRobot, die, hang
from tests.robots.session_process import Wave

ROOT = Path(__file__).parents[3]
PLACE = r" in fail \(\S+fakes\.py:\d+\)"  # the own line of a driver that raises


class Called(FakeRobot):
    """Also keeps the names of its other calls."""

    def __init__(self, **faults: Any):
        super().__init__(**faults)
        self.calls: list[str] = []

    def connect(self) -> None:
        self.calls.append("connect")

    def prepare(self, seed: int) -> None:
        self.calls.append("prepare")
        super().prepare(seed)

    def stop(self, reason: str) -> None:
        self.calls.append("stop")
        super().stop(reason)

    def close(self) -> None:
        self.calls.append("close")


def run(
    robot: FakeRobot, folder: Path, episodes: int = 2, shadow: Any = None, reset: Any = None, **options: Any
) -> Report:
    given = {"steps": 10, "engage_seconds": 0.0, "deadline": 80.0, "max_age": 80.0, **options}
    reset = reset or (lambda reason, withdrawn: False)
    policy: Any = Wave(robot.spec)
    return Runner(robot, policy, Options(**given), folder, shadow, reset=reset).run(episodes, seed=0)


def test_every_episode_that_was_asked_for(tmp_path: Path) -> None:
    robot = Called()
    report = run(robot, tmp_path)
    assert (report.life.faults, report.life.exit_code, len(report.results)) == ([], 0, 2)
    assert robot.calls == ["connect", "prepare", "stop", "prepare", "stop", "close"]


@pytest.mark.parametrize("columns", [40, 0], ids=["narrow", "of unknown width"])
def test_the_live_line_fits_the_terminal_and_leaves_nothing_of_it(tmp_path: Path, columns: int) -> None:
    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    policy: Any = Wave(make_spec())
    with open(terminal, "w") as status:
        Runner(FakeRobot(), policy, Options(steps=20, deadline=80.0, max_age=80.0), tmp_path, status=status).run(
            1, seed=0
        )
        *_, line, blank, rest = os.read(master, 2**16).decode().split("\r")
    os.close(master)
    assert line.startswith("episode 1/1  step ")
    assert (blank, rest) == (" " * len(line), "")
    assert len(line) == (columns or 80) - 1


def test_a_terminal_whose_output_stands_still_holds_up_no_end(tmp_path: Path) -> None:
    master, terminal = os.openpty()
    termios.tcflow(terminal, termios.TCOOFF)  # Ctrl-S
    robot = Called()
    policy: Any = Wave(robot.spec)
    options = Options(steps=80, deadline=80.0, max_age=80.0, engage_seconds=0.0)
    with open(terminal, "w") as status:
        report = Runner(robot, policy, options, tmp_path, status=status).run(1, seed=0)
        assert robot.calls[-2:] == ["stop", "close"]
        assert (report.life.exit_code, report.results[0].steps) == (0, 80)
        termios.tcflow(terminal, termios.TCOON)
        assert os.read(master, 2**16).startswith(b"\repisode 1/1  step ")
    os.close(master)


def test_a_stream_for_the_live_line_that_a_driver_closes_keeps_no_session_from_its_end(tmp_path: Path) -> None:
    master, terminal = os.openpty()
    robot = Called()
    policy: Any = Wave(robot.spec)
    options = Options(steps=40, deadline=80.0, max_age=80.0, engage_seconds=0.0)
    with open(terminal, "w") as status:
        robot.connect = status.close  # type: ignore[method-assign]
        report = Runner(robot, policy, options, tmp_path, status=status).run(1, seed=0)
    os.close(master)
    assert robot.calls == ["prepare", "stop", "close"]
    assert (report.life.faults, report.life.exit_code) == ([], 0)
    assert read_log(report.path).integrity.status == "sealed"


def test_what_goes_wrong_in_the_watch_itself_leaves_no_robot_engaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = Called()
    monkeypatch.setattr(Runner, "_show", die(ArithmeticError("no line")))
    with pytest.raises(ArithmeticError, match="no line"):
        run(robot, tmp_path, steps=10_000)
    assert robot.calls[-2:] == ["stop", "close"]
    (log,) = tmp_path.glob("*.mcap")
    assert read_log(log).integrity.status == "sealed"


def test_a_driver_that_connects_when_the_session_is_over_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robots.session.runner.RETURN_SECONDS", 0.05)
    robot = Called()
    closed = [threading.Event(), threading.Event()]

    def connect() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert closed[0].wait(10)  # of what is not connected yet, and so releases nothing
        robot.calls.append("connect")

    def close() -> None:
        robot.calls.append("close")
        closed["connect" in robot.calls].set()

    robot.connect, robot.close = connect, close  # type: ignore[method-assign]
    report = run(robot, tmp_path)
    assert closed[1].wait(10)
    assert robot.calls == ["close", "connect", "close"]
    assert report.life.exit_code == 128 + signal.SIGTERM


def test_a_driver_that_fails_to_stop_ends_the_session(tmp_path: Path) -> None:
    robot = Called()
    robot.stop = die(OSError("port is gone"))  # type: ignore[method-assign]
    report = run(robot, tmp_path, episodes=3)
    assert robot.calls == ["connect", "prepare", "close"]
    assert report.life.exit_code == 2
    (fault,) = report.life.faults
    assert re.fullmatch(rf"episode 0 was stopped: the driver failed to stop: OSError: port is gone{PLACE}", fault)
    assert report.results[0].stopped
    assert report.results[0].steps == 10
    assert read_log(report.path).episodes[0].complete


def test_a_reset_does_not_undo_that_a_driver_failed_to_stop(tmp_path: Path) -> None:
    robot = Called()
    stop = robot.stop

    def fail_once(reason: str) -> None:
        robot.stop = stop  # type: ignore[method-assign]
        raise OSError("port is gone")

    robot.stop = fail_once  # type: ignore[method-assign]
    report = run(robot, tmp_path, reset=lambda reason, withdrawn: True)
    assert [result.stopped for result in report.results] == [True, False]
    assert report.life.exit_code == 2


def test_a_stop_may_take_its_time(tmp_path: Path) -> None:
    robot = Called()
    robot.stop = hang(0.3)  # type: ignore[method-assign]
    report = run(robot, tmp_path, deadline=8.0)
    assert report.life.faults == []
    assert [result.reason for result in report.results] == ["steps", "steps"]
    assert all(result.timing.rate_hz > 40 for result in report.results), "stopping is no part of an episode's time"


@pytest.mark.parametrize(
    ("close", "said"), [(die(OSError("no answer")), "OSError: no answer"), (hang(30), "than 0.1 s")]
)
def test_a_driver_that_fails_to_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, close: Any, said: str) -> None:
    monkeypatch.setattr("robots.session.runner.CLOSE_SECONDS", 0.1)
    robot = Called()
    robot.close = close  # type: ignore[method-assign]
    report = run(robot, tmp_path)
    assert report.life.exit_code == 2
    assert report.life.faults[0].startswith("the driver failed to close: ")
    assert said in report.life.faults[0]
    assert read_log(report.path).integrity.status == "sealed"


@pytest.mark.parametrize("error", [SystemExit(3), OSError("no such port")])
def test_a_driver_that_fails_to_connect_is_closed(tmp_path: Path, error: BaseException) -> None:
    robot = Called()
    robot.connect = die(error)  # type: ignore[method-assign,arg-type]
    report = run(robot, tmp_path)
    assert robot.calls == ["close"]
    (fault,) = report.life.faults
    assert re.fullmatch(rf"cannot connect to 'fake': {type(error).__name__}: {error}{PLACE}", fault)
    assert read_log(report.path).integrity.status == "sealed"


@pytest.mark.parametrize("folder", ["a file", "a folder in it"])
def test_a_log_that_cannot_be_created_leaves_the_robot_alone(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("")
    robot = Called()
    with pytest.raises(UserError, match=r"cannot create the log .*: \S*/file is a file; name a folder"):
        run(robot, tmp_path / "file" if folder == "a file" else tmp_path / "file" / "logs")
    assert robot.calls == []


def test_a_log_that_cannot_be_begun_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No space left"):
        LogWriter(tmp_path / "a.mcap", Session("{}"), sync=die(OSError(28, "No space left on device")))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.mcap").write_text("somebody's")
    with pytest.raises(UserError, match="File exists"):
        LogWriter(tmp_path / "a.mcap", Session("{}"))
    assert (tmp_path / "a.mcap").read_text() == "somebody's"


def test_nothing_moves_while_nobody_holds_the_deadman(tmp_path: Path) -> None:
    robot = Called()
    report = run(robot, tmp_path, deadman=lambda: False)
    assert robot.calls == ["connect", "stop", "close"]
    assert report.life.faults == ["episode 0 was stopped: the deadman was released"]


def test_whoever_watches_may_be_a_method_of_what_cannot_be_copied(tmp_path: Path) -> None:
    held = threading.Event()
    held.set()
    assert run(FakeRobot(), tmp_path, deadman=held.is_set, takeover=threading.Event().is_set).life.faults == []


def test_a_deadman_that_dies_while_the_robot_homes_stops_it(tmp_path: Path) -> None:
    robot = Called()
    looks: list[int] = []

    def homing(seed: int) -> None:
        end = time.monotonic() + 5
        while "stop" not in robot.calls and time.monotonic() < end:
            time.sleep(0.005)

    def pedal() -> bool:
        looks.append(0)
        if len(looks) > 3:
            raise ValueError("the pedal is unplugged")
        return True

    robot.prepare = homing  # type: ignore[method-assign]
    report = run(robot, tmp_path, deadman=pedal)
    assert report.life.faults == ["episode 0 was stopped: the watchdog failed: ValueError: the pedal is unplugged"]
    assert len(robot.commands) == 0


def test_a_stop_that_homing_cleared_is_sent_again(tmp_path: Path) -> None:
    robot = Called()
    held = [True, True]
    prepare = robot.prepare

    def slow(seed: int) -> None:
        held.clear()
        while "stop" not in robot.calls:
            time.sleep(0.005)
        prepare(seed)

    robot.prepare = slow  # type: ignore[method-assign]
    run(robot, tmp_path, deadman=lambda: bool(held))
    assert robot.calls == ["connect", "stop", "prepare", "stop", "close"]
    assert robot.stopped


def test_a_robot_is_stopped_where_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    robot = Called()
    monkeypatch.setattr(threading.Thread, "start", die(RuntimeError("can't start new thread")))
    Latch(robot, 0.1).rest("steps")
    assert robot.calls == ["stop"]


def images(**found: Any) -> Called:
    return Called(faults=dict.fromkeys(range(100), lambda robot: robot.reading(images=found)))


def test_a_signal_is_heard_that_a_drivers_library_ignores(tmp_path: Path) -> None:
    """In C it puts a handler of its own in place, without Python's knowledge."""

    class Deaf(Called):
        def connect(self) -> None:
            ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))  # SIG_IGN
            super().connect()

        def prepare(self, seed: int) -> None:
            super().prepare(seed)
            time.sleep(0.15)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.15)

    before = signal.getsignal(signal.SIGTERM)
    report = run(Deaf(), tmp_path)
    assert report.life.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_images_that_cannot_be_logged_are_refused_before_anything_moves(tmp_path: Path) -> None:
    robot = images(wrist=np.zeros((4, 6, 4), np.uint8))
    report = run(robot, tmp_path)
    assert len(robot.commands) == 0
    assert "image 'wrist' is [4, 6, 4] uint8; a log holds" in report.life.faults[0]
    log = read_log(report.path)
    assert log.integrity.status == "sealed"
    assert [event["kind"] for event in log.events] == ["episode_start", "stop", "episode_end", "session_end"]


def test_depth_is_logged(tmp_path: Path) -> None:
    robot = images(depth=np.full((4, 6, 1), 60_000, np.uint16), front=np.zeros((4, 6, 3), np.uint8))
    report = run(robot, tmp_path)
    assert report.life.faults == []
    logged = {row["frame_id"]: pixels_of(row) for row in read_images(report.path)}
    np.testing.assert_array_equal(logged["depth"], np.full((4, 6), 60_000, np.uint16))
    np.testing.assert_array_equal(logged["front"], np.zeros((4, 6, 3), np.uint8))


def test_a_shadow_that_dies_is_no_success(tmp_path: Path) -> None:
    def incomparable(row: Any, latent: Any) -> None:
        raise SystemExit(3)

    spec = make_spec()
    shadow = Wave(spec)
    shadow.policy_id, shadow.log_prob_of = "ef" * 32, incomparable  # type: ignore[attr-defined]
    policy = Wave(spec)
    for each in (shadow, policy):
        each.manifest.family, each.manifest.action_size, each.manifest.parameters_per_dimension = "token", 3, 2
    options = Options(steps=5, engage_seconds=0.0, deadline=80.0, max_age=80.0)
    report = Runner(Called(), policy, options, tmp_path, shadow).run(1, seed=0)  # type: ignore[arg-type]
    assert report.life.faults == ["the shadow policy failed: SystemExit: 3"]


def test_a_shadow_of_another_robot_is_refused_before_anything_is_open(tmp_path: Path) -> None:
    robot, other = Called(), make_spec(action_high=(1.0, 2.0, 1.0))
    with pytest.raises(UserError, match="action_high"):
        run(robot, tmp_path / "logs", shadow=Wave(other))
    assert robot.calls == []
    assert not (tmp_path / "logs").exists()


def test_a_listener_that_fails_stops_the_robot(tmp_path: Path) -> None:
    def listen(row: Step) -> None:
        raise ValueError("no window")

    robot: Any = Called()
    options = Options(steps=5, engage_seconds=0.0, deadline=80.0, max_age=80.0)
    policy: Any = Wave(robot.spec)
    report = Runner(robot, policy, options, tmp_path, listeners=(listen,)).run(1, seed=0)
    assert "log failed: ValueError: no window" in report.life.faults[0]
    assert robot.calls == ["connect", "prepare", "stop", "close"]


ARM = """
import sys
from deploy.runtime.policy import OnnxPolicy
from robots.cli import main
from tests.robots.session_process import Arm, Wave
OnnxPolicy.load = lambda *_, **__: Wave(Arm.spec)
arm = ["--robot", "tests.robots.session_process:Arm", "--set=calls=calls", "--set=at=" + sys.argv[1]]
arm += ["--set=event=" + sys.argv[2], "--set=number=1", "--deadline", "80", "--max-age", "80"]
sys.exit(main(["run", *arm, "--policy", "x", "--log", "logs", "--steps", "5", "--episodes", "1"]))
"""


@pytest.mark.parametrize(
    ("redirected", "event", "code"),
    [("> /dev/full", "nothing", 0), (">&- 2>&- <&-", "exits", 2), ("> /dev/full 2> /dev/full", "signal", 129)],
)
def test_an_exit_code_does_not_depend_on_where_the_output_goes(
    tmp_path: Path, redirected: str, event: str, code: int
) -> None:
    (tmp_path / "arm.py").write_text(ARM)
    command = ["sh", "-c", f'exec "{sys.executable}" arm.py engaged {event} {redirected}']
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (code, b"")
    assert (tmp_path / "calls").read_text().split()[-2:] == ["stop", "close"]


def test_a_terminal_that_is_closed_ends_a_session_in_good_order(tmp_path: Path) -> None:
    (tmp_path / "arm.py").write_text(ARM)
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "arm.py", "stopped", "nothing"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while b"Type reset" not in shown:
        shown += os.read(master, 1000)
    os.close(master)
    assert process.wait(timeout=30) == 129
    assert (tmp_path / "calls").read_text().split()[-2:] == ["stop", "close"]
    (log,) = (tmp_path / "logs").glob("*.mcap")
    assert read_log(log).integrity.status == "sealed"
