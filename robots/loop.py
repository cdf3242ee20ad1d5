"""The control loop: observe → freshness → policy → gate → act → log, at a fixed rate, until something ends it."""

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from deploy.manifest import Manifest
from deploy.policy import Decision
from robots import safety
from robots.base import Observation, Robot
from robots.errors import RobotError
from robots.latch import STOPPED, Latch, Watchdog
from robots.log import Image, LogWriter, Step, plain
from robots.log.schema import SECTIONS
from robots.timing import Clock, Pacer, Timing, TimingSummary


class Policy(Protocol):
    """What acts: `deploy.policy.OnnxPolicy`, or a stand-in of a test."""

    manifest: Manifest
    policy_id: str

    def act(self, observation: np.ndarray, rng: np.random.Generator | None, deterministic: bool = False) -> Decision:
        """Choose an action [D] for observation [O]."""
        ...


def _never() -> bool:
    return False


def _always() -> bool:
    return True


def _no_reason() -> str:
    return ""


@dataclass(frozen=True)
class Options:
    """How an episode is run.

    Args:
        steps: after which it is truncated.
        speed: pace of the loop; above 1 only for simulated robots. Deadlines stay those of the nominal period.
        deterministic: take the most likely action; such steps are no samples, so they are logged as not `valid`.
        end_on_success: truncate as soon as the robot reports success.
        engage_seconds: over which the policy is given control.
        deadline: periods that observe, policy or act may take before the watchdog stops the robot.
        max_age: periods an observation may be old.
        deadman: asked every tick; False stops the robot.
        takeover: asked every tick; True ends the episode, a person has the robot.
        quit: asked every tick; a reason ends the episode in good order.

    """

    steps: int = 500
    speed: float = 1.0
    deterministic: bool = False
    end_on_success: bool = False
    engage_seconds: float = 0.25
    deadline: float = 1.25
    max_age: float = 1.5
    deadman: Callable[[], bool] = _always
    takeover: Callable[[], bool] = _never
    quit: Callable[[], str] = _no_reason

    def __post_init__(self) -> None:
        ranges = {"steps": (1, 10**7), "speed": (1e-3, 1e3), "engage_seconds": (0, 60)}
        ranges |= {"deadline": (0.1, 10**4), "max_age": (0.1, 10**4)}
        for key, (low, high) in ranges.items():
            if not low <= getattr(self, key) <= high:
                raise RobotError(f"{key} is {getattr(self, key)}; it must be from {low} to {high}")


@dataclass(frozen=True)
class Result:
    """How an episode went.

    Args:
        reason: why it ended: `steps`, `success`, `terminated`, `takeover`, what `quit` said, or what stopped it.
        stopped: the robot is latched; a person must reset it.
        success: what the robot's outcome sensor said; None where it has none.

    """

    episode: int
    steps: int
    total_reward: float
    success: bool | None
    reason: str
    stopped: bool
    timing: TimingSummary


class _End(Exception):
    """An ordinary reason to end the episode."""


class ControlLoop:
    """Runs episodes of one policy on one robot.

    Args:
        robot: connected.
        policy: whose manifest equals the robot's spec.
        log: of the session.
        options: how to run.
        clock: that paces the loop and ages observations.
        listeners: called with each step after it is logged; they must not block.

    """

    def __init__(
        self,
        robot: Robot,
        policy: Policy,
        log: LogWriter,
        options: Options,
        clock: Clock | None = None,
        listeners: tuple[Callable[[Step], None], ...] = (),
    ):
        self.robot, self.policy, self.log, self.options = robot, policy, log, options
        self.spec = robot.spec
        self._clock = clock or Clock()
        self._listeners = listeners
        self._limits = safety.Limits.of(self.spec)
        period = self.spec.period_ns / 1e9
        self.latch = Latch(robot, period / 4, self._stopped)
        deadlines = dict.fromkeys(SECTIONS, options.deadline * period)
        # Between ticks the loop sleeps; if it does not wake up, nobody minds the robot.
        deadlines["wait"] = (max(1, 1 / options.speed) + options.deadline) * period
        self._watchdog = Watchdog(self.latch, deadlines, period / 4)
        self._episode = self._step = -1
        self._running = False
        self._raw: Any = None
        self._version = policy.manifest.policy_version

        self.overruns = 0

    def close(self) -> None:
        """End the watchdog."""
        self._watchdog.close()

    @property
    def step(self) -> int:
        """Tick of the running episode."""
        return self._step

    @property
    def rate_hz(self) -> float:
        """Of the running episode, wall clock."""
        seconds = (self._clock.now_ns() - self._timing.started_ns) / 1e9 if self._running else 0.0
        return self._step / seconds if seconds > 0 else 0.0

    @property
    def hanging(self) -> bool:
        """Stopped, but the driver or the policy has not returned yet."""
        return self._running and self.latch.state == STOPPED

    def run(self, episode: int, seed: int) -> Result:
        """Run one episode; whatever goes wrong ends in a latched stop and a result, not in an exception.

        Args:
            episode: number within the session.
            seed: chooses what the robot lets be chosen, and with the number every noise draw:
                `numpy.random.default_rng([seed, episode])`, one draw of [D] a step.

        """
        self._begin(episode, seed)
        self._running = True
        try:
            with _undisturbed():
                self.robot.prepare(seed)
                self.latch.engage()
                self._run()
        except _End as end:
            self._reason = str(end)
            self.latch.rest(self._reason)
        except RobotError as error:
            self.latch.stop(str(error))
        except Exception as error:  # drivers and policies raise anything
            self.latch.stop(f"{self._section or 'prepare'} failed: {type(error).__name__}: {error}")
        except BaseException:
            self.latch.stop("the process was interrupted")
            raise
        finally:
            self._watchdog.rest()
            self._running = False
        return self._finish()

    def _begin(self, episode: int, seed: int) -> None:
        self._episode, self._step, self._section = episode, 0, ""
        self._rng = np.random.default_rng([seed, episode])
        pace = round(self.spec.period_ns / self.options.speed)
        self._timing = Timing(pace)
        self._last: Observation | None = None
        self._pending: Step | None = None
        self._success: bool | None = None
        self._total, self._reason, self._row = 0.0, "", [0] * (2 + len(SECTIONS))
        self._state: safety.State | None = None
        self._own, self._cpu, self._log_cpu = 0, time.thread_time_ns(), self.log.cpu_ns
        data = {
            "policy_id": self.policy.policy_id,
            "policy_version": self._version,
            "deterministic": self.options.deterministic,
            "seed": seed,
            "noise": f"numpy.random.default_rng([{seed}, {episode}])",
        }
        self.log.event("episode_start", episode=episode, step=0, data=data)

    def _run(self) -> None:
        """The loop itself; ends by an exception."""
        pacer = Pacer(self._clock, self._timing.period_ns, self.options.speed == 1)
        self._timing.started_ns = self._clock.now_ns()
        while True:
            with self._timed("wait"):
                late = pacer.wait()
            began = self._clock.now_ns()
            observation = self._observe()
            self._ask_people()
            with self._timed("policy"):
                values = observation.values.astype(np.float32)
                decision = self.policy.act(values, self._rng, self.options.deterministic)
                self._raw = decision.action
            with self._timed("gate"):
                command, changed = self._gate(observation, decision)
            with self._timed("act"), self.latch.permission():
                sent = np.array(self.robot.act(command), float)
                self._keep(began, values, decision, sent, changed)
            self._account(late, self._clock.now_ns() - began)
            self._step += 1

    def _observe(self) -> Observation:
        """A checked observation; it also completes the step before."""
        with self._timed("observe"):
            found = self.robot.observe()
        previous = 0 if self._last is None else self._last.time_ns
        fault = safety.check_observation(self.spec, self._limits, found.values) or self._stale(found.time_ns, previous)
        if not fault and not np.isfinite(found.reward):
            fault = f"the reward is {found.reward}"
        if fault:
            self._raw = found.values
            raise RobotError(fault)
        self._last = found
        if found.success and not self._success:
            self.log.event("outcome", "reported by the robot", self._episode, self._step, {"success": True})
        if found.success is not None:
            self._success = bool(self._success or found.success)
        ends = self._ends(found)
        with self._timed("log"):
            self._complete(found.reward, found.terminated, bool(ends) and not found.terminated)
            for camera, pixels in found.images.items():
                self.log.image(Image(camera, time.time_ns(), found.time_ns, pixels))
        if ends:
            raise _End(ends)
        return found

    def _ends(self, found: Observation) -> str:
        if found.terminated:
            return "terminated"
        if self._success and self.options.end_on_success:
            return "success"
        return "steps" if self._step >= self.options.steps else ""

    def _ask_people(self) -> None:
        if not self.options.deadman():
            raise RobotError("the deadman was released")
        if self.options.takeover():
            self.log.event("takeover", "a person took over", self._episode, self._step)
            raise _End("takeover")
        if reason := self.options.quit():
            raise _End(reason)
        if self.log.error is not None:
            raise RobotError(f"the log failed: {self.log.error}")

    def _gate(self, observation: Observation, decision: Decision) -> tuple[np.ndarray, tuple[str, ...]]:
        fault = safety.check_numbers("log-prob", decision.log_prob, self.spec.action_names)
        fault = fault or safety.check_latent(decision.latent, self.spec.action_size)
        # A policy that took its time acts on the past.
        fault = fault or self._stale(observation.time_ns, observation.time_ns)
        if fault:
            raise RobotError(fault)
        if self._state is None:
            self._state = safety.start(self.spec, observation.hold)
            self.log.event("engage", episode=self._episode, step=self._step, data={"hold": plain(self._state.command)})
        hold = np.array(self.spec.action_hold) if observation.hold is None else observation.hold
        verdict = safety.gate(self.spec, self._limits, self._state, decision.action, hold, self._engaged())
        if verdict.command is None:
            raise RobotError(verdict.stop)
        return verdict.command, verdict.changed

    def _stale(self, measured_ns: int, previous_ns: int) -> str:
        allowed = round(self.options.max_age * self.spec.period_ns)
        return safety.check_freshness(measured_ns, previous_ns, self._clock.now_ns(), allowed)

    def _engaged(self) -> float:
        """Share of control the policy has at this step; it grows to 1 over `engage_seconds`."""
        ticks = self.options.engage_seconds * self.spec.control_rate_hz
        return 1.0 if ticks < 1 else min(1.0, (self._step + 1) / ticks)

    def _keep(
        self, began: int, values: np.ndarray, decision: Decision, sent: np.ndarray, changed: tuple[str, ...]
    ) -> None:
        """Remember the step until the next observation says what came of it."""
        if fault := safety.check_numbers("sent action", sent, self.spec.action_names):
            raise RobotError(f"the driver reports nonsense: {fault}")
        assert self._state is not None
        self._state = safety.advance(self._state, sent)
        self._pending = Step(
            episode=self._episode,
            step=self._step,
            wall_ns=time.time_ns(),
            monotonic_ns=began,
            observation=values,
            latent=decision.latent,
            action=decision.action,
            sent_action=sent,
            log_prob=decision.log_prob,
            policy_version=self._version,
            valid=not self.options.deterministic and self._engaged() >= 1,
            gate=changed,
        )

    def _complete(self, reward: float, terminated: bool, truncated: bool) -> None:
        row, self._pending = self._pending, None
        if row is None:
            return
        row.reward, row.terminated, row.truncated = float(reward), bool(terminated), truncated
        row.timing_us = tuple(round(value / 1000) for value in self._timing.rows[-1])
        self._total += row.reward
        self.log.step(row)
        for listener in self._listeners:
            listener(row)

    def _finish(self) -> Result:
        self._timing.ended_ns = self._clock.now_ns()
        stopped = self.latch.state == STOPPED
        reason = self.latch.reason if stopped else self._reason
        # The last observation came after the last command, unless that one still waits for it.
        final = self._last if self._pending is None else None
        self._complete(0.0, False, True)
        timing = self._timing.summary()
        if self._success is False:
            self.log.event("outcome", "reported by the robot", self._episode, self._step, {"success": False})
        data = {
            "success": self._success,
            "steps": self._step,
            "return": self._total,
            "final_observation": None if final is None else final.values.astype(np.float32).tolist(),
            "timing": timing.data(),
        }
        self.log.event("episode_end", reason, self._episode, self._step, data)
        return Result(self._episode, self._step, self._total, self._success, reason, stopped, timing)

    def _stopped(self, reason: str) -> None:
        """Called at once when the latch falls, in whatever thread saw the reason."""
        self.log.event("stop", reason, self._episode, self._step, {"raw": plain(self._raw)})

    @contextmanager
    def _timed(self, section: str) -> Iterator[None]:
        self._section = section
        self._watchdog.enter(section)
        began, cpu = self._clock.now_ns(), time.thread_time_ns()
        yield
        if section in SECTIONS:
            self._row[2 + SECTIONS.index(section)] += self._clock.now_ns() - began
        if section in ("gate", "log"):
            self._own += time.thread_time_ns() - cpu

    def _account(self, late: int, work: int) -> None:
        self._row[0], self._row[1] = late, work
        self.overruns += work > self._timing.period_ns
        self._timing.rows.append(tuple(self._row))
        cpu, log_cpu = time.thread_time_ns(), self.log.cpu_ns
        logging = max(0, log_cpu - self._log_cpu)
        self._timing.cpu.append((cpu - self._cpu + logging, self._own + logging))
        self._row, self._own, self._cpu, self._log_cpu = [0] * (2 + len(SECTIONS)), 0, cpu, log_cpu


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Threads that want Python's lock wait half a millisecond for it, not five; garbage waits for the episode's end."""
    gc.freeze()
    enabled, interval = gc.isenabled(), sys.getswitchinterval()
    gc.disable()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.unfreeze()
        if enabled:
            gc.enable()
