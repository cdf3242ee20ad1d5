"""What an episode leaves in the log: every step with what came of it, and the events around them."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from deploy.runtime.acting import ActingPolicy
from gipo.common.errors import UserError
from robots import safety
from robots.base import Observation
from robots.decider import Choice
from robots.log import Image, LogWriter, Step, plain
from robots.log.episode import name_or_names
from robots.log.images import encoding_of
from robots.log.schema import TIMES
from robots.people.operator import Said
from robots.session.options import Options, Result
from robots.spec import RobotSpec
from robots.timing import Timing

Listener = Callable[[Step], None]


class Recorder:
    """Writes what happens in one episode to the log.

    A step is logged when the next observation says what came of it; until then it is pending.

    Args:
        log: of the session.
        spec: of the robot.
        options: how the episode is run.
        episode: its number.
        listeners: called with each step after it is logged.
    """

    def __init__(
        self, log: LogWriter, spec: RobotSpec, options: Options, episode: int, listeners: tuple[Listener, ...] = ()
    ):
        self.episode, self.step, self.overruns = episode, 0, 0
        self.policy_id, self.seed = "", 0  # who acts, and what the episode was begun from
        self.success: bool | None = None  # what the robot reports
        self.verdict: bool | None = None  # what a person said of it, which counts
        self.discarded = False  # by a person
        self.interrupted = False  # before its own end, by a person or by what went wrong beside the policy
        self.source = "policy"  # who chose the last command
        self.helped = False  # by a person who acted
        self.total = 0.0  # return so far, what a person gave included
        self.raw: Any = None  # what was refused last, for the reason of a stop
        self.last: Observation | None = None
        self.timing = Timing(round(spec.period_ns / options.speed))
        self._log, self._spec, self._options, self._listeners = log, spec, options, listeners
        self._limits = safety.Limits.of(spec)
        self._pending: Step | None = None
        self._spent = dict.fromkeys(TIMES, 0)  # nanoseconds, of the tick that runs
        self._own, self._cpu, self._log_cpu = 0, time.thread_time_ns(), log.cpu_ns

    def start(self, policy: ActingPolicy, seed: int) -> None:
        """Log the start of the episode: who acts, and where its noise comes from."""
        self.policy_id, self.seed = policy.policy_id, seed
        vision = policy.manifest.vision
        cameras = self._options.cameras(() if vision is None else vision.cameras)
        data = {
            "policy_id": policy.policy_id,
            "policy_version": policy.manifest.policy_version,
            "deterministic": self._options.deterministic,
            "seed": seed,
            "instruction": self._options.instruction,
            "camera": name_or_names(cameras),
            "replan": self._options.replan,
            "noise": f"numpy.random.default_rng([{seed}, {self.episode}])",
        }
        self.event("episode_start", data=data)

    def event(self, kind: str, reason: str = "", data: dict[str, Any] | None = None) -> None:
        """Log an event at the present step."""
        self.helped |= kind == "takeover"  # which may end the episode before the person's first step
        self._log.event(kind, reason, self.episode, self.step, data)

    def stopped(self, reason: str) -> None:
        """Log a stop, from whatever thread saw its reason."""
        self.event("stop", reason, {"raw": plain(self.raw)})

    def seen(self, found: Observation) -> None:
        """Take an observation that passed its checks: note its outcome."""
        self.last = found
        if found.success and not self.success:
            self.event("outcome", "reported by the robot", {"success": True})
        if found.success is not None:
            self.success = bool(self.success or found.success)

    @property
    def privileged(self) -> np.ndarray | None:
        """[G] what the robot knew beside its last observation, float32; None where it knows nothing."""
        known = None if self.last is None else self.last.privileged
        return None if known is None else known.astype(np.float32)

    def said(self, word: Said) -> None:
        """Log what a person says of the episode."""
        self.event("said", "by a person", word.data)
        if word.success is not None:
            self.verdict = word.success
        if word.discard is not None:
            self.discarded = word.discard
        self.total += word.reward or 0.0

    def sent(
        self,
        began_ns: tuple[int, int],
        values: np.ndarray,
        choice: Choice,
        sent: np.ndarray,
        changed: tuple[str, ...],
        version: int,
    ) -> None:
        """Note a command that went out; it is logged once the next observation says what came of it.

        `began_ns` is when its tick began, by the clock that paces the loop and by that of the wall.

        Raises:
            UserError: when the driver says it sent what is no command.
        """
        if fault := safety.check_sent(self._spec, self._limits, sent):
            raise UserError(f"the driver reports nonsense: {fault}")
        decision = choice.decision
        self.source = "hold" if "engage" in changed else choice.source
        self.helped |= self.source == "person"
        self._pending = Step(
            episode=self.episode,
            step=self.step,
            wall_ns=began_ns[1],
            monotonic_ns=began_ns[0],
            observation=values,
            latent=decision.latent,
            action=decision.action,
            sent_action=sent,
            log_prob=decision.log_prob,
            policy_version=version,
            valid=not self._options.deterministic and self.source == "policy",
            gate=changed,
            chunk_step=choice.chunk_step,
            source=self.source,
            proposed_action=choice.proposed,
            privileged=self.privileged,
        )

    def complete(self, reward: float, terminated: bool, truncated: bool) -> None:
        """Log the pending step with what came of it."""
        row, self._pending = self._pending, None
        if row is None:
            return
        row.reward, row.terminated, row.truncated = float(reward), bool(terminated), truncated
        row.timing_us = tuple(round(value / 1000) for value in self.timing.last())
        self.total += row.reward
        self._log.step(row)
        for listener in self._listeners:
            listener(row)

    def images(self, found: Observation) -> None:
        """Log the images of an observation."""
        for camera, pixels in found.images.items():
            encoding = encoding_of(pixels)
            self._log.image(Image(camera, time.time_ns(), found.time_ns, pixels, encoding, self.episode, self.step))

    def spent(self, section: str, wall_ns: int, cpu_ns: int) -> None:
        """Add to the time that a section of this tick took, nanoseconds of the wall and of the processor."""
        self._spent[section] += wall_ns
        if section in ("gate", "log"):
            self._own += cpu_ns

    def tick(self, late_ns: int, work_ns: int) -> None:
        """End a tick: keep how late it began and what its work took, nanoseconds."""
        self._spent |= {"late": late_ns, "work": work_ns}
        cpu, log_cpu = time.thread_time_ns(), self._log.cpu_ns
        logging = max(0, log_cpu - self._log_cpu)
        self.timing.add(self._spent.values(), (cpu - self._cpu + logging, self._own + logging))
        self._spent, self._own, self._cpu, self._log_cpu = dict.fromkeys(TIMES, 0), 0, cpu, log_cpu
        self.overruns += work_ns > self.timing.period_ns
        self.step += 1

    def finish(self, reason: str, stopped: bool) -> Result:
        """Log the end of the episode, and say how it went."""
        # The last observation came after the last command, unless that one still waits for it.
        final = self.last if self._pending is None else None
        self.complete(0.0, False, True)
        timing = self.timing.summary()
        if not self.success and (self.interrupted or not self.step):
            self.success = None  # nobody knows what it would have come to, had it gone on
        if self.success is False:
            self.event("outcome", "reported by the robot", {"success": False})
        success = self.success if self.verdict is None else self.verdict
        data = {
            "success": success,
            "steps": self.step,
            "return": self.total,
            "final_observation": None if final is None else final.values.astype(np.float32).tolist(),
            "timing": asdict(timing),
        }
        if final is not None and final.privileged is not None:
            data["final_privileged"] = final.privileged.astype(np.float32).tolist()
        self.event("episode_end", reason, data)
        return Result(
            episode=self.episode, steps=self.step, total_reward=self.total, success=success, reason=reason,
            stopped=stopped, timing=timing, discarded=self.discarded, policy_id=self.policy_id, seed=self.seed,
            helped=self.helped,
        )  # fmt: skip
