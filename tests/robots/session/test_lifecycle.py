"""Every event in every state of a session, as `docs/robots.md` tables them, in processes of their own."""

import multiprocessing
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from robots.log import read_log
from robots.session.lifecycle import LifeCycle, SessionOver, State, signals
from tests.robots import session_process

TABLE = Path(__file__).parents[3] / "docs" / "robots.md"
EVENTS = {
    "it is done": ["nothing"],
    "the driver raises or exits": ["raises", "exits"],
    "the driver hangs": ["hangs"],
    "a signal": ["signal"],
    "a second signal": ["signals"],
    "the log fails": ["disk"],
    "the deadman is released": ["deadman"],
    "no standard input": ["no stdin"],
}
PATIENCE = 20.0  # seconds; a session that takes longer is killed, which is no exit code of the table
AT_ONCE = 6  # processes; they mostly wait


@dataclass
class Cell:
    """What the table says of an event in a state, and the process in which it happens."""

    state: str
    event: str
    number: int
    follows: str
    code: str
    folder: Path

    @property
    def stdin(self) -> str:
        if self.event == "no stdin":
            return "closed"
        if self.state != "stopped":
            return "nobody"
        return "silent" if self.event.startswith("signal") else "person"

    @property
    def expected_code(self) -> int:
        if self.event == "hangs" and self.follows == self.state:
            return 128 + signal.SIGTERM  # the session waits, until that ends it
        return 128 + self.number if self.code == "128+n" else int(self.code)

    def faults(self, code: int | None) -> list[str]:
        """What happened otherwise than the table says."""
        states = (self.folder / "states").read_text().split()
        calls = (self.folder / "calls").read_text().split()
        error = (self.folder / "err").read_text(errors="replace")
        (log,) = (self.folder / "disk").glob("*.mcap")
        found = [] if code == self.expected_code else [f"exit code {code}, not {self.expected_code}: {error!r}"]
        after = states[states.index(self.state) + 1]
        if after != ("closing" if self.follows == self.state else self.follows):
            found.append(f"then {after}: {states}")
        moves = [index for index, call in enumerate(calls) if call in ("connect", "prepare", "observe", "act")]
        rest = calls[moves[-1] + 1 :]
        if "close" not in rest or ("connected" in states and (rest[0], rest[-1]) != ("stop", "close")):
            found.append(f"calls {calls[-6:]}")
        if states[-1] != "sealed" or (self.event != "disk" and read_log(log).integrity.status != "sealed"):
            found.append(f"the log is not sealed: {states}")
        if code == 2 and not re.search(r"gipo-robot: error: .*\w", error):
            found.append(f"no reason: {error!r}")
        return [f"{self.state}, {self.event} {self.number or ''}: {each}" for each in found]


def cells(folder: Path) -> list[Cell]:
    rows = [[each.strip() for each in line.strip("|\n ").split("|")] for line in TABLE.read_text().splitlines()]
    head = next(row for row in rows if row[:2] == ["state", "it is done"])
    assert head[1:] == list(EVENTS), "the table knows other events"
    body = [row for row in rows[rows.index(head) + 2 :] if len(row) == len(head)]
    assert [row[0] for row in body] == [state.value for state in State][:-1], "the table knows other states"
    found = []
    for row in body:
        for name, cell in zip(head[1:], row[1:], strict=True):
            for event in EVENTS[name] if cell != "–" else ():
                follows, _, code = cell.partition(" ")
                for number in numbers(row[0], event):
                    place = folder / f"{row[0]}-{event}-{number}".replace(" ", "-")
                    found.append(Cell(row[0], event, int(number), follows, code, place))
    return found


def numbers(state: str, event: str) -> list[int]:
    """The signals that may be meant; 0 for none."""
    if event == "signals":
        return [signal.SIGINT]
    if event != "signal":
        return [0]
    return [
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        *([signal.SIGQUIT, signal.SIGTSTP] if state == "engaged" else []),
    ]


def run(some: list[Cell]) -> dict[int, int | None]:
    """Exit codes of their processes, in order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([session_process.__name__])
    waiting, running, codes, ends = list(enumerate(some)), {}, {}, {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            index, cell = waiting.pop(0)
            (cell.folder / "disk").mkdir(parents=True, exist_ok=True)
            given = (str(cell.folder), cell.state, cell.event, cell.number, cell.stdin)
            running[index] = process = context.Process(target=session_process.run, args=given)
            process.start()
            ends[index] = time.monotonic() + PATIENCE
        time.sleep(0.02)
        for index in [index for index in running if time.monotonic() > ends[index]]:
            running[index].kill()
        for index in [index for index, process in running.items() if process.exitcode is not None]:
            codes[index] = running.pop(index).exitcode
    return codes


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A real one, which a test can fill, where it may be mounted."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


def test_every_cell_of_the_table(tmp_path: Path) -> None:
    known = cells(tmp_path)
    assert len(known) > 55
    # In other states too little is written to be sure that a full disk is noticed: there files may not grow.
    (full,) = (cell for cell in known if (cell.state, cell.event) == ("engaged", "disk"))
    with small_disk(full.folder / "disk") as mounted:
        codes = run(known)
        wrong = [fault for index, cell in enumerate(known) for fault in cell.faults(codes[index])]
        assert not mounted or "No space left on device" in (full.folder / "err").read_text()
    assert not wrong, "\n".join(wrong)


def test_what_is_closing_cannot_go_on() -> None:
    life = LifeCycle()
    life.enter(State.CONNECTED)
    life.enter(State.PREPARING)
    assert life.enter(State.CLOSING) is State.PREPARING
    with pytest.raises(SessionOver, match="closing, it cannot be engaged"):
        life.enter(State.ENGAGED)
    assert life.history == [State.LOGGED, State.CONNECTED, State.PREPARING, State.CLOSING]


def test_a_fault_weighs_more_than_a_signal() -> None:
    life = LifeCycle()
    life.heard(signal.SIGTERM)
    assert life.exit_code == 143
    life.fault("")
    assert life.exit_code == 143
    cause = OSError("cable")
    life.fault("the driver failed to stop", cause)
    life.fault("the driver failed to stop")
    assert (life.exit_code, life.faults, life.cause) == (2, ["the driver failed to stop"], cause)


@pytest.mark.parametrize(("ignored", "expected"), [(False, [signal.SIGHUP]), (True, [])])
def test_under_nohup_a_lost_terminal_is_no_matter(ignored: bool, expected: list[int]) -> None:
    heard: list[int] = []
    handler = signal.SIG_IGN if ignored else (lambda number, frame: None)
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with signals(heard.append):
            signal.raise_signal(signal.SIGHUP)
        assert heard == expected
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_driver_blocks_is_heard() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        with signals(lambda number: None) as listen:
            assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            listen()
            assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def test_a_process_that_a_driver_forks_is_ended_by_its_terminate() -> None:
    """The driver's `connect`, which forks, is called in the control thread."""
    heard: list[int] = []
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    worker = context.Process(target=lambda: (begun.set(), time.sleep(60)), daemon=True)
    with signals(heard.append):
        control = threading.Thread(target=worker.start)
        control.start()
        control.join()
        assert begun.wait(10)
        worker.terminate()
        worker.join(10)
        ended = worker.exitcode
        worker.kill()
        assert ended == -signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM], "the session itself hears it as before"
