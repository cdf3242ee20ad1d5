"""The keyboard at real terminals, and terminals that are themselves again however the process ends."""

import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gipo.common.errors import UserError
from robots.base import Observation
from robots.log import read_log
from robots.people.key_terminal import split
from robots.people.keyboard import KEYS, Keyboard, keys_of
from robots.people.operator import Said
from robots.people.pushes import Pushes
from tests.robots.builders import make_spec

ROOT = Path(__file__).parents[3]
SEEN = Observation(np.zeros(5), 1)


class Typist:
    """A keyboard, its clock, and what is typed at it."""

    def __init__(self, master: int, spec: Any = None):
        self.master, self.now = master, 100.0
        self.keyboard = Keyboard(spec or make_spec())
        self.keyboard._clock = self.keyboard._pushes._clock = lambda: self.now
        self.keyboard.begin()

    def type(self, keys: bytes) -> np.ndarray:
        """The command after these keys."""
        os.write(self.master, keys)
        end = time.monotonic() + 2
        while not os.get_blocking(self.master) and time.monotonic() < end:
            pass
        time.sleep(0.005)  # through the terminal
        return self.keyboard.action(SEEN)

    def words(self) -> list[Said]:
        found = []
        while (word := self.keyboard.said()) is not None:
            found.append(word)
        return found


@pytest.fixture
def typist(terminal: int) -> Iterator[Typist]:
    found = Typist(terminal)
    yield found
    found.keyboard.close()


@pytest.mark.parametrize("enter", [b"\n", b"\r"])
def test_space_takes_over_and_enter_hands_back(typist: Typist, enter: bytes) -> None:
    assert not typist.keyboard.engaged()
    typist.type(b" ")
    assert typist.keyboard.engaged()
    typist.type(enter)
    assert not typist.keyboard.engaged()
    typist.type(enter)
    assert not typist.keyboard.engaged()


@pytest.mark.parametrize("seconds", [0.0, 0.033, 0.2, 0.3, 0.5, 1.5])
def test_who_strikes_space_in_alarm_has_the_robot_whatever_the_terminal_repeats(typist: Typist, seconds: float) -> None:
    typist.type(b" ")
    typist.type(b"\n")
    for _ in range(20):
        typist.now += seconds
        typist.type(b" ")
        assert typist.keyboard.engaged()


def test_a_digit_that_is_held_is_one_reward(typist: Typist) -> None:
    for _ in range(10):
        typist.type(b"5")
        typist.now += 0.033
    typist.type(b"3")
    assert typist.words() == [Said(reward=5.0), Said(reward=3.0)]


UP, DOWN, RIGHT, LEFT = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D"


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (RIGHT, [0.5, 0, 0]),
        (LEFT, [-0.5, 0, 0]),
        (UP, [0, 0.5, 0]),
        (b"\x1bOA", [0, 0.5, 0]),  # as other terminals send it
        (b"u", [0, 0, 0.5]),  # the gripper goes from 0 to 1
        (b"j", [0, 0, 0]),
        (RIGHT + UP, [0.5, 0.5, 0]),
        (RIGHT + LEFT, [-0.5, 0, 0]),  # the last one counts
        (b"x\x1b[15~q", [0, 0, 0]),
    ],
)
def test_keys_move(typist: Typist, keys: bytes, command: list[float]) -> None:
    typist.type(b" ")
    np.testing.assert_array_equal(typist.type(keys), command)


def test_a_key_that_is_let_go_moves_no_more(typist: Typist) -> None:
    typist.type(b" ")
    assert typist.type(RIGHT)[0] == 0.5
    typist.now += 0.1
    assert typist.type(b"")[0] == 0.5
    typist.now += 0.1
    assert (typist.type(b"") == 0).all(), "never the last command again"
    assert typist.type(RIGHT)[0] == 0.5
    typist.now += 1
    assert typist.type(RIGHT + b" ")[0] == 0.5, "who has the robot may grab space again"
    typist.type(RIGHT + b"\n ")
    assert (typist.type(b"") == 0).all(), "a hand-back lets go of every key"


def test_letters_and_digits_say_how_it_goes(typist: Typist) -> None:
    typist.type(b"s3fd0")
    expected = [Said(success=True), Said(reward=3.0), Said(success=False), Said(discard=True), Said(reward=0.0)]
    assert typist.words() == expected
    typist.type(b"s")
    typist.keyboard.begin()
    assert typist.words() == [], "what was said between episodes is not of the next"


def test_escape_sequences_may_come_in_parts() -> None:
    assert split(b"a\x1b") == (["a"], b"\x1b")
    assert split(b"\x1b[") == ([], b"\x1b[")
    assert split(b"\x1b[1;5") == ([], b"\x1b[1;5")
    assert split(b"\x1b[1;5Cb") == (["b"], b"")  # Ctrl-right is no arrow
    assert split(b"\x1b[Ax\x1bOB") == (["up", "x", "down"], b"")
    assert split(b"\x1bs") == (["s"], b"")
    assert split(bytes(range(256)) * 3)[1] in (b"", b"\x1b")


def test_the_terminal_echoes_nothing_meanwhile_and_is_itself_again(terminal: int) -> None:
    before = termios.tcgetattr(sys.stdin.fileno())
    keyboard = Keyboard(make_spec())
    assert termios.tcgetattr(sys.stdin.fileno()) == before, "not yet: a person may be asked something first"
    keyboard.begin()
    during = termios.tcgetattr(sys.stdin.fileno())
    assert not during[3] & (termios.ECHO | termios.ICANON)
    assert during[3] & termios.ISIG, "Ctrl-C is a signal as ever"
    keyboard.rest()
    assert termios.tcgetattr(sys.stdin.fileno()) == before
    keyboard.begin()
    keyboard.close()
    keyboard.close()
    assert termios.tcgetattr(sys.stdin.fileno()) == before


def test_ctrl_s_stops_no_output_for_which_the_end_of_an_episode_would_wait(typist: Typist) -> None:
    typist.type(b"\x13")
    shown = os.open(os.ttyname(sys.stdin.fileno()), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        assert os.write(shown, b"step 1") == 6
    finally:
        os.close(shown)


def test_a_terminal_that_has_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    with open(slave) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        keyboard = Keyboard(make_spec())
        keyboard.begin()
        os.close(master)
        with pytest.raises(OSError):  # noqa: PT011 - EIO, or the end of input
            keyboard.action(SEEN)
        keyboard.rest()
        keyboard.close()


def test_who_has_no_terminal_or_too_many_dimensions_is_told(monkeypatch: pytest.MonkeyPatch, terminal: int) -> None:
    size = len(KEYS) + 1
    values: dict[str, Any] = {
        "action_names": tuple(f"j{i}" for i in range(size)), "action_units": ("1",) * size,
        "action_low": (-1.0,) * size, "action_high": (1.0,) * size,
        "action_rate": (None,) * size, "action_acceleration": (None,) * size,
        "action_hold": (0.0,) * size,
    }  # fmt: skip
    with pytest.raises(UserError, match="keys for 9 action dimensions, 'fake' has 10; name an operator of your own"):
        Keyboard(make_spec(**values))
    with open(os.devnull) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UserError, match="a keyboard needs a terminal"):
            Keyboard(make_spec())
    with pytest.raises(UserError, match="strength is 2"):
        Keyboard(make_spec(), strength=2)


def test_every_dimension_has_keys_of_its_own_and_a_line_that_says_so() -> None:
    taken = [key for pair in KEYS for key in pair]
    assert len(set(taken)) == len(taken)
    assert not set(taken) & set(" sfd0123456789")
    assert "left / right" in keys_of(make_spec())
    assert "x down / up" in keys_of(make_spec())


def test_positions_stay_where_they_were_pushed_to() -> None:
    now = [0.0]
    pushes = Pushes(make_spec(action_hold=("measured", 0.0, "measured")), 0.5, lambda: now[0])
    held = Observation(np.zeros(5), 1, np.array([0.2, 0.0, 0.5]))
    np.testing.assert_allclose(pushes.command(np.zeros(3), held), [0.2, 0, 0.5])
    now[0] = 0.1  # half the range of 2 in a second: .1 in a tenth of it
    np.testing.assert_allclose(pushes.command(np.array([1.0, 1.0, 0.0]), held), [0.3, 0.5, 0.5])
    sagged = Observation(np.zeros(5), 1, np.array([0.0, 0.0, 0.4]))
    np.testing.assert_allclose(pushes.command(np.zeros(3), sagged), [0.3, 0, 0.5])
    now[0] = 9.0
    np.testing.assert_allclose(pushes.command(np.array([1.0, 0, -1.0]), sagged), [1, 0, 0], err_msg="within bounds")
    pushes.begin()
    np.testing.assert_allclose(pushes.command(np.ones(3), sagged), [0, 0.5, 0.4], err_msg="from where it is")


def test_a_position_is_pushed_no_faster_than_the_robot_may_move() -> None:
    """Or it would go on to where the push got to long after the key was let go."""
    now = [0.0]
    spec = make_spec(action_hold=("measured", 0.0, "measured"), action_rate=(0.3, 0.3, None))
    pushes = Pushes(spec, 0.5, lambda: now[0])
    held = Observation(np.zeros(5), 1, np.array([0.2, 0.0, 0.0]))
    pushes.command(np.zeros(3), held)
    now[0] = 1.0
    np.testing.assert_allclose(
        pushes.command(np.ones(3), held)[[0, 2]], [0.5, 0.5 * (spec.action_high[2] - spec.action_low[2])]
    )


# A process of its own at a terminal of its own -----------------------------------------------------------------------


class Session:
    """`gipo-robot run --operator keyboard` at a pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder
        self.master, self.slave = os.openpty()
        self.before = termios.tcgetattr(self.slave)
        command = [sys.executable, "-m", "tests.robots.people.keyboard_process", "--log", str(folder), *arguments]
        self.process = subprocess.Popen(
            command, stdin=self.slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        )  # fmt: skip
        self.until(lambda: not termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def until(self, true: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, self.process.poll()
            time.sleep(0.01)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> str:
        said, _ = self.process.communicate(timeout=60)
        return str(said)

    def is_itself_again(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before

    @property
    def episode(self) -> Any:
        (path,) = self.folder.glob("*.mcap")
        return read_log(path).episodes[0]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def at_terminal(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    sessions = []

    def begin(*arguments: str) -> Session:
        sessions.append(Session(tmp_path / "logs", *arguments))
        return sessions[-1]

    yield begin
    for session in sessions:
        session.close()


def test_a_person_at_the_keyboard_helps_and_says_how_it_went(at_terminal: Callable[..., Session]) -> None:
    session = at_terminal("--episodes", "1", "--steps", "100000", "--end-on-label")
    session.type(b" ")
    for _ in range(22):
        session.type(RIGHT)
        time.sleep(0.05)
    session.type(b"\n")
    time.sleep(0.2)
    session.type(b"5s")
    said = session.end()
    assert session.process.returncode == 0, said
    assert "space" in said
    assert "hand back" in said
    assert session.is_itself_again()
    episode = session.episode
    assert episode.success
    kinds = [event["kind"] for event in episode.events]
    assert kinds == ["episode_start", "engage", "takeover", "handback", "said", "said", "episode_end"]
    persons = episode["source"] == 1
    assert episode["sent_action"][persons].max() > 0.2
    assert (episode["action"][persons][:, 1] == 0).all(), "no key of it is down"
    assert (episode["source"][~persons] == 0).all()
    assert episode.rewards_given[0][1] == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_itself_again_after_a_signal(at_terminal: Callable[..., Session], number: int) -> None:
    session = at_terminal("--episodes", "1", "--steps", "100000")
    session.process.send_signal(number)
    session.end()
    session.until(session.is_itself_again, 5)
    assert session.process.returncode == (-9 if number == signal.SIGKILL else 128 + number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_forks_keeps_nobody_from_the_terminal(at_terminal: Callable[..., Session], number: int) -> None:
    """Its process has all that this one had open, the end of the pipe that the guard waits for among it."""
    session = at_terminal("--episodes", "1", "--steps", "100000", "--set", "forks=true")
    session.process.send_signal(number)
    assert session.process.wait(20) == (-9 if number == signal.SIGKILL else 128 + number)
    session.until(session.is_itself_again, 5)


def test_a_fault_gives_the_terminal_back(at_terminal: Callable[..., Session], tmp_path: Path) -> None:
    raises = tmp_path / "raises"
    session = at_terminal("--episodes", "1", "--steps", "100000", "--set", f"{raises=!s}")
    raises.touch()
    session.until(session.is_itself_again)
    time.sleep(0.3)
    session.type(b"no\n")  # to the question whether to go on, for which the terminal is itself
    said = session.end()
    assert session.process.returncode == 2
    assert "port is gone" in said
    assert session.is_itself_again()
