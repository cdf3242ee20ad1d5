"""The control loop: observe → freshness → people → policy → gate → act → log, at a fixed rate, until it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from deploy.runtime.acting import ActingPolicy
from gipo.common.errors import UserError
from gipo.common.faults import line_of
from robots import safety
from robots.base import Observation, Robot
from robots.decider import Choice, Decider, Unseen
from robots.drivers.contract import carry_out, numbers, owned
from robots.latch import STOPPED, Latch, Watchdog
from robots.log import LogWriter
from robots.log.images import check_images
from robots.log.schema import SECTIONS
from robots.people.operator import Operator
from robots.people.takeover import Takeover, Turn
from robots.people.watch import Watched
from robots.recorder import Listener, Recorder
from robots.session.lifecycle import State
from robots.session.options import Options, Result
from robots.timing import Clock, Pacer, undisturbed


class _End(Exception):
    """An ordinary reason to end the episode."""


class ControlLoop:
    """Runs episodes on one robot.

    Args:
        robot: connected.
        policy: that acts first, whose manifest equals the robot's spec.
        log: of the session.
        options: how to run.
        clock: that paces the loop and ages observations.
        listeners: called with each step after it is logged; they must not block.
        entered: told when an episode is prepared, and when the policy takes over.
        operator: a person who may take over and hand back, and say how it goes.
    """

    def __init__(
        self,
        robot: Robot,
        policy: ActingPolicy,
        log: LogWriter,
        options: Options,
        clock: Clock | None = None,
        listeners: tuple[Listener, ...] = (),
        entered: Callable[[State], object] = lambda state: None,
        operator: Operator | None = None,
    ):
        self._entered = entered
        self.robot, self.policy, self.log, self.options = robot, policy, log, options
        self.spec = robot.spec
        self.record: Recorder | None = None  # of the episode that runs, or ran last
        self._clock = clock or Clock()
        self._listeners = listeners
        self._limits = safety.Limits.of(self.spec)
        self._decider = Decider(policy, options)
        self._handed_over = np.zeros(self.spec.action_size)  # what held the robot when who has it now got it
        self._running = False
        period = self.spec.period_ns / 1e9
        self.latch = Latch(robot, period / 4, self._stopped)
        patience = options.deadline * period
        deadlines = dict.fromkeys((*SECTIONS, "deadman"), patience)
        # Between ticks the loop sleeps; if it does not wake up, nobody minds the robot.
        deadlines["wait"] = (max(1, 1 / options.speed) + options.deadline) * period
        self._watched = None if operator is None else Watched(operator, period, patience, options.speed != 1)
        self._takeover = Takeover(self.spec, self._watched)
        guards = {**dict.fromkeys(deadlines, self._takeover.unsafe), "prepare": self._unsafe}
        self._watchdog = Watchdog(self.latch, deadlines, period / 4, guards)

    def close(self) -> None:
        """End the watchdog, and release the operator's device; the loop runs no further episode."""
        self._watchdog.close()
        if self._watched is not None:
            self._watched.close()

    @property
    def hanging(self) -> bool:
        """Whether the robot is stopped, but the driver or the policy has not returned yet."""
        return self._running and self.latch.state == STOPPED

    @undisturbed()  # until the robot is stopped: garbage of a long episode takes its time
    def run(self, episode: int, seed: int, policy: ActingPolicy | None = None) -> Result:
        """Run one episode; whatever goes wrong ends in a latched stop and a result, not in an exception.

        Args:
            episode: number within the session.
            seed: chooses what the robot lets be chosen, and with the number every noise draw:
                `numpy.random.default_rng([seed, episode])`, one draw of [D] a step, or of [H·D] a chunk.
            policy: that acts from now on; None for who acted last.

        Raises:
            SessionOver: when the session was closed before it began.
        """
        if policy is not None and policy is not self.policy:
            self.policy, self._decider = policy, Decider(policy, self.options)
        self._entered(State.PREPARING)
        record = Recorder(self.log, self.spec, self.options, episode, self._listeners)
        self.record, self._section, self._running, reason = record, "prepare", True, ""
        record.start(self.policy, seed)
        self._decider.begin()
        try:
            self._prepare(record, seed)
            self._run(record, np.random.default_rng([seed, episode]))
        except _End as end:
            reason = str(end)
            self.latch.rest(reason)
        except UserError as error:
            record.interrupted |= isinstance(error, Unseen)
            self._fail(record, str(error))
        except BaseException as error:  # drivers and policies raise anything, and some exit
            self._fail(record, f"{self._section} failed: {type(error).__name__}: {error}{line_of(error)}")
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            self._watchdog.rest()
            self._takeover.rest()
            self._running = False
        self._listen(record)
        stopped = self.latch.state == STOPPED
        return record.finish(self.latch.reason if stopped else reason, stopped)

    def _fail(self, record: Recorder, reason: str) -> None:
        """Stop the robot, unless it is; only what is the policy's doing is a failure of the policy."""
        where = self._watchdog.overdue if self.latch.state == STOPPED else self._section
        record.interrupted |= where not in ("policy", "gate")
        self.latch.stop(reason)

    def _prepare(self, record: Recorder, seed: int) -> None:
        """Bring the robot to its start, guarded; nothing moves, homing included, when nothing may."""
        self.latch.begin()
        self._ask_people(record)
        self._watchdog.enter("prepare")
        carry_out(self.robot.prepare, seed)
        if self.latch.state == STOPPED:
            self.latch.repeat()  # preparing clears a driver's stop, also one that came meanwhile
            self.latch.check()
        self._takeover.begin()
        self._entered(State.ENGAGED)
        self.latch.engage()

    def _stopped(self, reason: str) -> None:
        if self.record is not None:
            self.record.stopped(reason)

    def _run(self, record: Recorder, rng: np.random.Generator) -> None:
        """The loop itself, and its time; stopping the robot is no part of either. Ends by an exception."""
        record.timing.started_ns = self._clock.now_ns()
        try:
            self._tick_for_ever(record, rng)
        finally:
            record.timing.ended_ns = self._clock.now_ns()
            self._watchdog.rest()

    def _tick_for_ever(self, record: Recorder, rng: np.random.Generator) -> None:
        pacer = Pacer(self._clock, record.timing.period_ns, self.options.speed == 1)
        state: safety.Motion | None = None
        while True:
            with self._timed("wait"):
                late = pacer.wait()
            began, wall = self._clock.now_ns(), time.time_ns()
            observation = self._observe(record)
            with self._timed("deadman"):
                self._ask_people(record)
                turn = self._turn(observation, record)
            with self._timed("policy"):
                values = observation.values.astype(np.float32)
                choice = self._choose(turn, observation, values, rng)
                record.raw = choice.decision.action
            with self._timed("gate"):
                state = state or self._engage(record, observation)
                command, changed = self._gate(state, observation, choice, record.step)
            with self._timed("act"), self.latch.permission():
                sent = numbers(self.robot.act(command.copy()))  # in whose array it may convert units
                record.sent((began, wall), values, choice, sent, changed, self.policy.manifest.policy_version)
                state = safety.advance(state, command, sent)
            record.tick(late, self._clock.now_ns() - began)

    def _observe(self, record: Recorder) -> Observation:
        """A checked observation; it also completes the step before."""
        with self._timed("observe"):
            found = owned(self.robot.observe())
        previous = 0 if record.last is None else record.last.time_ns
        fault = safety.check_observation(self.spec, self._limits, found.values) or self._stale(found.time_ns, previous)
        before = found.privileged if record.last is None else record.privileged
        fault = fault or check_images(found.images) or safety.check_privileged(found.privileged, before)
        fault = fault or safety.check_outcome(found.reward, found.success, found.terminated)
        if fault:
            record.raw = found.values
            raise UserError(fault)
        record.seen(found)
        ends = self._ends(record, found)
        with self._timed("log"):
            record.complete(found.reward, found.terminated, bool(ends) and not found.terminated)
            record.images(found)
        if ends:
            raise _End(ends)
        return found

    def _ends(self, record: Recorder, found: Observation) -> str:
        if found.terminated:
            return "terminated"
        if record.success and self.options.end_on_success:
            return "success"
        return "steps" if record.step >= self.options.steps else ""

    def _ask_people(self, record: Recorder) -> None:
        safety.refuse(self._unsafe())
        record.interrupted = True  # until the questions below have let it go on
        if self.options.takeover():
            record.event("takeover", "a person took over")
            raise _End("takeover")
        if reason := self.options.quit():
            raise _End(reason)
        record.interrupted = False

    def _listen(self, record: Recorder) -> str:
        """Log what a person has said, and the last word of it that judges the episode."""
        words = self._takeover.words()
        for said in words:
            record.said(said)
        return next((said.verdict for said in reversed(words) if said.verdict), "")

    def _unsafe(self) -> str:
        """Why the robot may not move, whatever it is doing."""
        if not self.options.deadman():
            return "the deadman was released"
        return "" if self.log.error is None else f"the log failed: {self.log.error}"

    def _turn(self, observation: Observation, record: Recorder) -> Turn:
        """Whose turn it is; where that passes from one to the other, the log says so, and what a person says."""
        turn = self._takeover.next(observation, record.step)
        record.raw = turn.action
        if turn.action is not None:
            safety.refuse(safety.check_numbers("the person's action", turn.action, self.spec.action_names))
        verdict = self._listen(record)
        if verdict and self.options.end_on_label:
            raise _End(f"{verdict} (a person)")
        if turn.event:
            data = {"decisions": self._decider.decisions} if turn.event == "handback" else {}
            record.event(turn.event, turn.reason, data)
        if turn.event == "handback":
            self._decider.decide_anew()
        return turn

    def _choose(self, turn: Turn, observation: Observation, values: np.ndarray, rng: np.random.Generator) -> Choice:
        """What is to be done: what the policy says, who is always asked, or what a person does in its place."""
        decision, chunk_step = self._decider.next(observation, values, rng)
        if turn.action is None:
            return Choice(decision, chunk_step, since=turn.since)
        # Nobody sends it, yet it is logged.
        safety.refuse(safety.check_numbers("action", decision.action, self.spec.action_names))
        judged = self.policy.judged(decision, turn.action)
        return Choice(judged, chunk_step, turn.who, decision.action, turn.since)

    def _engage(self, record: Recorder, observation: Observation) -> safety.Motion:
        state = safety.start(self.spec, observation.hold)
        record.event("engage", data={"hold": state.command.tolist()})
        return state

    def _gate(
        self, state: safety.Motion, observation: Observation, choice: Choice, step: int
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        decision = choice.decision
        fault = safety.check_numbers("log-prob", decision.log_prob, self.spec.action_names)
        fault = fault or safety.check_latent(decision.latent, self.spec.action_size)
        # A policy that took its time acts on the past.
        safety.refuse(fault or self._stale(observation.time_ns, observation.time_ns))
        hold = safety.held_by(self.spec, observation.hold)
        if step == choice.since:
            self._handed_over = hold
        ticks = self.options.engage_seconds * self.spec.control_rate_hz
        engaged = 1.0 if ticks < 1 else min(1.0, (step - choice.since + 1) / ticks)
        if engaged < 1:
            hold = safety.kept_by(self.spec, self._handed_over, hold)
        return safety.gate(self.spec, self._limits, state, decision.action, hold, engaged)

    def _stale(self, measured_ns: int, previous_ns: int) -> str:
        allowed = round(self.options.max_age * self.spec.period_ns)
        return safety.check_freshness(measured_ns, previous_ns, self._clock.now_ns(), allowed)

    @contextmanager
    def _timed(self, section: str) -> Iterator[None]:
        assert self.record is not None
        self._watchdog.enter(section)  # which may find that the one before took too long
        self._section = section
        began, cpu = self._clock.now_ns(), time.thread_time_ns()
        yield
        if section in SECTIONS:
            self.record.spent(section, self._clock.now_ns() - began, time.thread_time_ns() - cpu)
