"""A session: some episodes of one policy on one robot, with its log, its status line and a person's right to end it."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from deploy.policy import OnnxPolicy
from robots.base import Robot
from robots.deciding import Decider
from robots.errors import LogError, RobotError
from robots.log import LogWriter, Session, Step, log_path
from robots.loop import ControlLoop
from robots.options import Options, Result
from robots.shadow import ShadowPolicy, check_comparable
from robots.summary import Report, live_line

HANGING_SECONDS = 5.0  # a stopped loop that has not returned by then never will


def _never(reason: str) -> bool:
    return False


class Runner:
    """Runs the control loop in a thread of its own, so that signals are heard even while a driver hangs.

    Args:
        robot: not yet connected.
        policy: to act.
        options: how to run an episode; `quit` is taken over.
        folder: where the log goes.
        shadow: a policy to score what `policy` does.
        settings: how the session was asked for, for the log.
        reset: asked with the reason after a stop; True when a person looked and says go on.
        listeners: called with each logged step; must not block.
        status: where the live line goes; None for nowhere.
    """

    def __init__(
        self,
        robot: Robot,
        policy: OnnxPolicy,
        options: Options,
        folder: str | Path,
        shadow: OnnxPolicy | None = None,
        settings: dict[str, Any] | None = None,
        reset: Callable[[str], bool] = _never,
        listeners: tuple[Callable[[Step], None], ...] = (),
        status: TextIO | None = None,
    ):
        robot.spec.check(policy.manifest)
        if shadow is not None:
            robot.spec.check(shadow.manifest)
            check_comparable(shadow, policy)
        Decider(policy, options)  # refuses what does not fit while nothing is open yet
        self.results: list[Result] = []
        self._robot, self._reset, self._status = robot, reset, status
        self._quit, self._stopped = "", ""
        self._options = replace(options, quit=lambda: self._quit)
        _connect(robot)
        known = [policy] if shadow is None else [policy, shadow]
        plain = {key: value for key, value in asdict(options).items() if isinstance(value, int | float | str)}
        session = Session(
            robot.spec.to_json(),
            {each.policy_id: each.manifest.to_json() for each in known},
            {**plain, **(settings or {})},
        )
        self.log = LogWriter(log_path(folder, robot.spec.name, session), session)
        self._shadow = None if shadow is None else ShadowPolicy(shadow, policy, self.log)
        if self._shadow is not None:
            listeners = (*listeners, self._shadow.worker)
        self._loop = ControlLoop(robot, policy, self.log, self._options, listeners=listeners)

    def run(self, episodes: int, seed: int) -> Report:
        """Run up to `episodes` episodes; episode e is prepared with seed + e.

        Raises:
            LogError: when the log could not be written to its end.
        """
        thread = threading.Thread(target=self._episodes, args=(episodes, seed), name="control", daemon=True)
        with self._signals():
            thread.start()
            self._watch(thread, episodes)
        hanging = thread.is_alive()
        if hanging:
            self._stopped = f"{self._loop.latch.reason}; and it still hangs"
        else:
            self._loop.close()
            with contextlib.suppress(
                Exception
            ):  # the episodes are logged; a driver that fails to close changes nothing
                self._robot.close()
        if self._shadow is not None:
            self._shadow.worker.close()
        statistics = self.log.close()
        shadow = None if self._shadow is None else self._shadow.summary()
        return Report(self.log.path, self.results, statistics, shadow, self._stopped, self._options.speed)

    def _episodes(self, episodes: int, seed: int) -> None:
        for episode in range(episodes):
            if self._quit:
                return
            result = self._loop.run(episode, seed + episode)
            self.results.append(result)
            if result.stopped:
                if not self._reset(result.reason):
                    self._stopped = f"episode {episode} was stopped: {result.reason}"
                    return
                self.log.event("reset", "a person looked and reset it", episode, result.steps)
                self._loop.latch.reset()

    def _watch(self, thread: threading.Thread, episodes: int) -> None:
        stopped_since = None
        while thread.is_alive():
            thread.join(0.25)
            self._show(episodes)
            if self._loop.hanging:
                stopped_since = stopped_since or time.monotonic()
                if time.monotonic() - stopped_since > HANGING_SECONDS:
                    break
            else:
                stopped_since = None
        if self._status is not None and self._status.isatty():
            print(file=self._status)

    def _show(self, episodes: int) -> None:
        if self._status is None or not self._status.isatty():
            return
        record = self._loop.record
        if record is None:
            return
        seconds = (time.monotonic_ns() - record.timing.started_ns) / 1e9
        line = live_line(
            record.episode, episodes, record.step, self._options.steps, record.step / max(seconds, 1e-3),
            record.overruns if self._options.speed == 1 else None, self.results, self.log.statistics.dropped,
        )  # fmt: skip
        print(f"\r{line:<100.100}", end="", file=self._status, flush=True)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the episode in good order; a second one stops the robot at once."""

        def heard(number: int, frame: object) -> None:
            name = signal.Signals(number).name
            if self._quit:
                threading.Thread(target=self._loop.latch.stop, args=(f"{name} again",), daemon=True).start()
            self._quit = self._quit or name

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def ask_at_terminal(reason: str) -> bool:
    """Ask the person at the terminal whether to go on; no terminal, no going on."""
    if not sys.stdin.isatty():
        return False
    print(f"\nSTOPPED: {reason}\nLook at the robot. Type reset to go on, anything else to end: ", end="", flush=True)
    return sys.stdin.readline().strip() == "reset"


def _connect(robot: Robot) -> None:
    try:
        robot.connect()
    except (RobotError, LogError):
        raise
    except Exception as error:  # drivers raise anything
        raise RobotError(f"cannot connect to {robot.spec.name!r}: {type(error).__name__}: {error}") from error
