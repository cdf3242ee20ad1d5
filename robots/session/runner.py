"""A session: episodes of one policy, or of two in turns, with a log, a status line and a person's right to end it.

    log opened → robot connected → prepared → engaged → stopped → closed → log sealed

However it ends, `_end` stops and closes the robot and seals the log; `robots.session.lifecycle` holds the states.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from deploy.runtime.acting import ActingPolicy
from gipo.common import terminal
from gipo.common.errors import UserError
from gipo.common.faults import line_of
from robots.base import Robot
from robots.decider import Decider
from robots.drivers.calls import Call
from robots.drivers.contract import carry_out, check_robot
from robots.log import LogWriter, Session, Step, log_path
from robots.loop import ControlLoop
from robots.people.operator import Operator
from robots.session.background import Background
from robots.session.lifecycle import LifeCycle, SessionOver, State, signals
from robots.session.options import Options, Result
from robots.session.shadow import ShadowPolicy, check_comparable
from robots.session.summary import Report, live_line
from robots.session.turns import Start, Turns

POLL_SECONDS = 0.05
RETURN_SECONDS = 1.0  # a driver may take to return from what a stop has ended
HANGING_SECONDS = 5.0  # a stopped loop that has not returned by then never will
CLOSE_SECONDS = 5.0  # a driver's `close` may take
LINES = 4  # of status that may wait for a terminal
DEFAULT_COLUMNS = 80  # of a terminal that does not say how wide it is

Reset = Callable[[str, Callable[[], bool]], bool]


class Runner:
    """Runs the control loop in a thread of its own, so that signals are heard even while a driver hangs.

    Args:
        robot: not yet connected.
        policy: to act.
        options: how to run an episode; `quit` is taken over.
        folder: where the log goes.
        shadow: a policy to score what `policy` does.
        candidate: a policy that drives in turns with `policy`.
        settings: how the session was asked for, for the log.
        reset: asked with the reason after a stop, and with what says that the question was withdrawn; True when a
            person looked and says go on.
        listeners: called with each logged step; must not block.
        status: where the live line goes; None for nowhere.
        operator: a person who may take over and hand back; closed when the session is.

    Raises:
        UserError: when robot, policies and options do not fit each other; nothing is open then.
    """

    log: LogWriter

    def __init__(
        self,
        robot: Robot,
        policy: ActingPolicy,
        options: Options,
        folder: str | Path,
        shadow: ActingPolicy | None = None,
        settings: dict[str, Any] | None = None,
        reset: Reset = lambda reason, withdrawn: False,
        listeners: tuple[Callable[[Step], None], ...] = (),
        status: TextIO | None = None,
        operator: Operator | None = None,
        candidate: ActingPolicy | None = None,
    ):
        check_robot(robot, "the robot")
        self._turns = Turns(policy, candidate)
        if shadow is not None:
            if candidate is not None:
                raise UserError("a shadow looks on at one policy; leave --shadow or --candidate out")
            robot.spec.check(shadow.manifest)
            check_comparable(shadow, policy)
        for each in self._turns.policies:
            try:
                _check_actor(each, robot, options, operator)
            except UserError as error:
                raise UserError(": ".join([*self._turns.roles(each.policy_id), str(error)])) from error
        self.results: list[Result] = []
        self.life = LifeCycle()
        self._robot, self._policy, self._looks_on, self._reset = robot, policy, shadow, reset
        self._listeners, self._status, self._operator = listeners, status, operator
        self._options = replace(options, quit=lambda: self.life.ended_by)
        known = [*self._turns.policies, *filter(None, [shadow])]
        plain = {key: value for key, value in vars(options).items() if isinstance(value, int | float | str)}
        self._session = Session(
            robot.spec.to_json(),
            {each.policy_id: each.manifest.to_json() for each in known},
            {**plain, **(settings or {}), **({"turns": self._turns.ids} if candidate else {})},
        )
        self._path = log_path(folder, robot.spec.name, self._session)
        self._called = False  # the driver, for the first time

    def run(self, episodes: int, seed: int, first: int = 0, until_told: bool = False) -> Report:
        """Run up to `episodes` episodes; episode e is prepared with seed + e. Of two policies each runs as many.

        Args:
            episodes: how many.
            seed: of goals and noise.
            first: number of the first one, where another session runs those before it.
            until_told: of two policies, no more than until one is known to succeed more often.

        Raises:
            UserError: when the log cannot be created; the robot is not connected then.
        """
        with signals(self.life.heard) as listen:
            self._open()
            numbers = range(first, first + episodes)
            control = threading.Thread(
                target=self._control, args=(numbers, seed, until_told), name="control", daemon=True
            )
            control.start()
            try:
                self._watch(control, numbers.stop * len(self._turns.policies), listen)
            finally:
                self._end(control)
        shadow = None if self._shadow is None else self._shadow.summary()
        log, speed = self.log, self._options.speed
        return Report(log.path, self.results, log.statistics, shadow, self.life, self._turns, speed)

    def _open(self) -> None:
        self.log = LogWriter(self._path, self._session, video=self._options.video)
        self._line = Background(self._overwrite, LINES)
        sampled = not self._options.deterministic
        self._shadow = None if self._looks_on is None else ShadowPolicy(self._looks_on, self.log, sampled)
        listeners = self._listeners
        if self._shadow is not None:
            listeners = (*listeners, self._shadow.worker)
        self._loop = ControlLoop(
            self._robot, self._policy, self.log, self._options, listeners=listeners, entered=self.life.enter,
            operator=self._operator,
        )  # fmt: skip

    def _control(self, numbers: range, seed: int, until_told: bool) -> None:
        """What the control thread does. Nothing that happens here is lost: it ends in `life`."""
        try:
            self._connect()
            for start in self._turns.starts(numbers, seed):
                told = until_told and self._turns.paired(self.results).told
                if told or self.life.must_end or not self._episode(start):
                    return
        except SessionOver:
            pass  # the thread that closed it says why
        except UserError as error:
            self.life.fault(str(error), error)
        except BaseException as error:
            self.life.fault(f"the control thread died: {type(error).__name__}: {error}", error)

    def _connect(self) -> None:
        self._called = True
        try:
            carry_out(self._robot.connect)
        except UserError:
            raise
        except BaseException as error:  # drivers raise anything, and some exit
            what = f"{type(error).__name__}: {error}{line_of(error)}"
            raise UserError(f"cannot connect to {self._robot.spec.name!r}: {what}") from error
        try:
            self.life.enter(State.CONNECTED)
        except SessionOver:
            self._robot.close()  # it came after all, when it was closed already
            raise

    def _episode(self, start: Start) -> bool:
        """Run one; True when there may be another."""
        result, episode = self._loop.run(*start), start.episode
        self.results.append(result)
        if not result.stopped:
            self.life.enter(State.CONNECTED)
            return True
        self.life.enter(State.STOPPED)
        latch, life = self._loop.latch, self.life
        reason = result.reason if latch.failure in result.reason else f"{result.reason}; {latch.failure}"
        said = f"episode {episode} was stopped: {reason}"
        if life.must_end:
            life.fault("" if reason == life.ended_by else said)
            return False
        life.fault(latch.failure and said)  # which no reset undoes
        # A log that failed fails again: there is nothing to decide.
        if self.log.error is not None or not self._reset(reason, lambda: life.must_end):
            life.fault("" if life.must_end else said)
            return False
        self.life.enter(State.CONNECTED)
        self.log.event("reset", "a person looked and reset it", episode, result.steps)
        latch.reset()
        return True

    def _watch(self, control: threading.Thread, episodes: int, listen: Callable[[], None]) -> None:
        """Return when the control thread does, or when it must not be waited for any longer."""
        since = None
        while control.is_alive() and not self.life.must_end:
            control.join(POLL_SECONDS)
            listen()  # libraries of drivers put handlers of their own in place when they connect
            _mind_output()
            self._show(episodes)
            since = (since or time.monotonic()) if self._loop.hanging else None
            if since is not None and time.monotonic() - since > HANGING_SECONDS:
                self.life.fault(f"{self._loop.latch.reason}; and it still hangs")
                break

    def _end(self, control: threading.Thread) -> None:
        """Stop, close, seal: the end of every session, each with a limit of its own."""
        left, latch = self.life.enter(State.CLOSING), self._loop.latch
        _mind_output()
        if left in (State.PREPARING, State.ENGAGED):
            latch.stop(self.life.ended_by or "the session is over")
        self._say("")
        self._line.close(RETURN_SECONDS)  # after the stop: the output of a terminal may stand still
        control.join(RETURN_SECONDS)
        connected = State.CONNECTED in self.life.history
        if connected:
            latch.settle("the session is over")
            self.life.fault(latch.failure if not any(latch.failure in fault for fault in self.life.faults) else "")
        fault = Call(self._loop.close).wait(CLOSE_SECONDS)
        self.life.fault(fault and f"the operator's device failed to close: {fault}")
        if self._called:
            fault = Call(self._robot.close).wait(CLOSE_SECONDS)
            if connected:  # else it has nothing to release, and why is said already
                self.life.fault(fault and f"the driver failed to close: {fault}")
        if self._shadow is not None:
            self._shadow.worker.close()
            error = self._shadow.worker.error
            self.life.fault(error and f"the shadow policy failed: {error}")
        try:
            self.log.close()
        except UserError as error:
            self.life.fault(str(error), error)
        self.life.enter(State.SEALED)

    def _show(self, episodes: int) -> None:
        record = self._loop.record
        if self.life.state is not State.ENGAGED or record is None:  # at a prompt it would stand in the way
            return
        seconds = (time.monotonic_ns() - record.timing.started_ns) / 1e9
        mine = [result for result in self.results if result.policy_id == record.policy_id]
        line = live_line(
            record.episode, episodes, record.step, self._options.steps, record.step / max(seconds, 1e-3),
            record.overruns if self._options.speed == 1 else None, mine, self.log.statistics.dropped,
        )  # fmt: skip
        who = ["PERSON"] * (record.source == "person") + self._turns.roles(record.policy_id)
        self._say("  ".join([*who, line]))

    def _say(self, line: str) -> None:
        """Overwrite the status line of a terminal, without waiting for it; an empty `line` erases it."""
        with suppress(ValueError):  # one that a driver has closed is no terminal
            if self._status is not None and self._status.isatty():
                self._line(line)

    def _overwrite(self, line: str) -> None:
        assert self._status is not None
        with suppress(OSError, ValueError):  # a terminal that has gone must not end the watch
            terminal_number = self._status.fileno()
            room = (os.get_terminal_size(terminal_number).columns or DEFAULT_COLUMNS) - 1
            # Past its buffer, whose lock a write that waits for ever would hold at the end of the process.
            os.write(terminal_number, f"\r{line:<{room}.{room}}{'' if line else chr(13)}".encode())


def _check_actor(policy: ActingPolicy, robot: Robot, options: Options, operator: Operator | None) -> None:
    """Refuse a policy that cannot act on the robot as the options say."""
    robot.spec.check(policy.manifest)
    Decider(policy, options)  # refuses what does not fit
    if operator is not None:
        _ = policy.latents  # likewise


def _mind_output() -> None:
    """A driver that prints in its `stop` must not fail to stop because the terminal, or a pipe's reader, has gone."""
    for stream in (sys.stdout, sys.stderr):
        if terminal.reader_has_gone(stream):
            terminal.give_up(stream)
